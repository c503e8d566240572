"""Transforms of torchvision (v2) and of albumentations: their own images, boxes and chance.

Neither library is imported here. Whoever passes one of their transforms has loaded them, and so
has a worker that unpickled it.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.orca.data.image.steps.arrays import Layout
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.chance import seeded, seeded_torch
from zoo.orca.data.image.steps.forms import as_array, as_pixels, is_tensor

__all__ = [
    "albumented",
    "chained",
    "is_albumentations",
    "is_torchvision",
    "may_draw",
    "torchvisioned",
]

_TORCHVISION = "torchvision.transforms"
_LOCAL = threading.local()


def _is_of(function: object, package: str) -> bool:
    return any(f"{kind.__module__}.".startswith(f"{package}.") for kind in type(function).__mro__)


def is_torchvision(function: object) -> bool:
    """Whether it is a transform of torchvision's second kind, which takes boxes."""
    return _is_of(function, f"{_TORCHVISION}.v2")


def is_albumentations(function: object) -> bool:
    """Whether it is a transform of albumentations, or a chain of them."""
    return _is_of(function, "albumentations")


def chained(function: Any) -> Iterator[Any]:
    """The transforms of a `Compose` of torchvision, one by one; or what else is given."""
    if _is_of(function, _TORCHVISION) and type(function).__name__ == "Compose":
        for part in function.transforms:
            yield from chained(part)
    else:
        yield function


# torchvision


def torchvisioned(
    function: Any, image: Any, boxes: Boxes | None, seed: int, layout: Layout
) -> tuple[Any, Boxes | None, bool]:
    """Call a transform of torchvision.

    Args:
        function: The transform.
        image: A picture, a tensor, or an array.
        boxes: What moves along.
        seed: What it draws from.
        layout: That of an array.

    Returns:
        The image, the boxes, and whether it drew.
    """
    if isinstance(image, np.ndarray):
        image = _tensor(image, layout)
    # Its own transforms draw from torch; other threads need not wait for those.
    with (seeded_torch if _is_own(function) else seeded)(seed) as drew:
        if boxes is None:
            return function(image), None, drew()
        made = function(_with_boxes(image, boxes))
        return made["image"], _moved(made, boxes), drew()


def _is_own(function: Any) -> bool:
    """Whether all its parts come from torchvision, and none calls a function of the user."""
    parts = getattr(function, "transforms", ())
    own = type(function).__module__.startswith(_TORCHVISION) and type(function).__name__ != "Lambda"
    return own and all(map(_is_own, parts))


def _tensor(array: Any, layout: Layout) -> Any:
    torch: Any = sys.modules["torch"]
    pixels = array[np.newaxis] if array.ndim == 2 else array
    if layout == "HWC" and array.ndim == 3:
        pixels = array.transpose(2, 0, 1)
    # torch wants memory in order, and may write to it.
    tensor = torch.from_numpy(np.array(pixels, order="C"))
    return sys.modules["torchvision.tv_tensors"].Image(tensor)


def _with_boxes(image: Any, boxes: Boxes) -> dict[str, Any]:
    torch: Any = sys.modules["torch"]
    size = tuple(image.shape[-2:]) if is_tensor(image) else (image.height, image.width)
    # Not clamped, so that it can be told how much of each is left.
    held = sys.modules["torchvision.tv_tensors"].BoundingBoxes(
        torch.from_numpy(boxes.corners * np.array([size[1], size[0]] * 2)),
        format="XYXY",
        canvas_size=size,
        clamping_mode=None,
    )
    # By these, a step that leaves boxes out tells which. Their name is the one that it looks for.
    return {"image": image, "boxes": held, "labels": torch.arange(len(boxes.corners))}


def _moved(made: dict[str, Any], boxes: Boxes) -> Boxes:
    functional: Any = sys.modules["torchvision.transforms.v2.functional"]
    held = functional.convert_bounding_box_format(made["boxes"], new_format="XYXY")
    height, width = made["boxes"].canvas_size
    corners = as_array(held).astype(np.float64) / np.array([width, height] * 2)
    return boxes.moved(corners, as_array(made["labels"]))


# albumentations


def albumented(
    function: Any, image: Any, boxes: Boxes | None, seed: int, min_visible: float
) -> tuple[Any, Boxes | None]:
    """Call a transform of albumentations.

    Args:
        function: The transform, or a `Compose` of some.
        image: A picture, a tensor, or an array (height, width, channel).
        boxes: What moves along.
        seed: What it draws from.
        min_visible: Boxes go of which less is left.
    """
    chain = _own_chain(function, with_boxes=boxes is not None, min_visible=min_visible)
    chain.set_random_seed(seed % (1 << 32))
    pixels = np.array(as_pixels(image), order="C")
    if boxes is None:
        return chain(image=pixels)["image"], None
    rows = np.flatnonzero(boxes.visible > 0)
    made = chain(image=pixels, bboxes=boxes.corners[rows], rows=rows)
    kept = np.asarray(made["rows"], np.int64).reshape(-1)
    corners = np.asarray(made["bboxes"], np.float64).reshape(-1, 4)
    return made["image"], boxes.moved(corners, kept)


def _own_chain(function: Any, **form: Any) -> Any:
    """A copy for this thread: it holds the generators that a call draws from."""
    held = _LOCAL.__dict__.setdefault("chains", {})
    key = (id(function), *form.values())
    if key not in held:
        # The function itself is kept, so that nothing else gets its number.
        held[key] = function, _chain(copy.deepcopy(function), **form)
    return held[key][1]


def _chain(function: Any, with_boxes: bool, min_visible: float) -> Any:
    library: Any = sys.modules["albumentations"]
    whole = isinstance(function, library.Compose)
    params = library.BboxParams(
        format="albumentations", label_fields=["rows"], min_visibility=min_visible
    )
    # Not the chain itself: it may count on boxes in a form of its own.
    return library.Compose(
        function.transforms if whole else [function],
        bbox_params=params if with_boxes else None,
        p=function.p if whole else 1.0,
    )


def may_draw(function: Any) -> bool:
    """Whether chance decides if a part of it is done; each draws, even where all are done."""
    parts = getattr(function, "transforms", ())
    return getattr(function, "p", 1) not in (0, 1) or any(map(may_draw, parts))
