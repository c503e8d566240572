"""Labels of object detection: a row for each object, with its box relative to the image's size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.writing.record_columns import Record
from zoo.orca.data.image.writing.verify import SizedImage, check_image, size_of_image
from zoo.orca.data.storage import locate

__all__ = [
    "SCHEMA",
    "Annotation",
    "Box",
    "Size",
    "annotated_size",
    "as_label",
    "check_classes",
    "image_size",
    "is_flat",
    "labelled",
    "plain_name",
    "relative_box",
]

SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "label": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1, 5)),
    "image_id": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}
Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax."""
Size = tuple[float, float]
"""Width and height in pixels."""


class Annotation(NamedTuple):
    """What an annotation says of an image.

    Attributes:
        label: The objects, by the size below or else by that of the image.
        size: As annotated; None where it is not.
        more: Values of further columns by name.
    """

    label: npt.NDArray[np.float32]
    size: Size | None
    more: Mapping[str, Any] = MappingProxyType({})


def labelled(path: str, annotate: Callable[[], Annotation]) -> Record | BadRecord:
    """Return the record of an image, whose size the writer compares with the annotated one.

    A bad annotation spoils this record only, which the writer may skip.

    Args:
        path: The image file, which is also the record's `image_id`.
        annotate: Returns the annotation, or raises an `InputError`.
    """
    try:
        label, size, more = annotate()
    except InputError as exc:
        return BadRecord(path, str(exc), exc)
    image = SizedImage(path, *size) if size else path
    return {"image": image, "label": label, "image_id": path, **more}


def annotated_size(width: Any, height: Any) -> Size | None:
    """Return a size as an annotation tells it, or None: zeros, -1 and texts are about."""
    try:
        size = float(width), float(height)
    except (TypeError, ValueError):
        return None
    return size if all(0 < side < math.inf for side in size) else None


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, whose places are the class numbers.

    Raises:
        InputError: They are no list of names, or one comes twice.
    """
    names = [] if isinstance(classes, str) else list(classes)
    good = names and all(isinstance(name, str) for name in names)
    if not good or len({plain_name(name) for name in names}) < len(names):
        raise InputError("classes as a list of names, each once", repr(classes), "Correct it.")
    return tuple(names)


def plain_name(name: str) -> str:
    """The name of a class in the form in which names are compared."""
    return name.strip().lower()


def is_flat(box: Box) -> bool:
    """Say whether a box has no width or no height, as some in every large set of data."""
    return box[0] == box[2] or box[1] == box[3]


def as_label(rows: Iterable[tuple[float, ...]]) -> npt.NDArray[np.float32]:
    """Return rows of xmin, ymin, xmax, ymax and class number as one array; none is 0 x 5."""
    return np.array(list(rows), np.float32).reshape(-1, 5)


def relative_box(box: Box, width: float, height: float, owner: str, *, strict: bool = False) -> Box:
    """Divide a box by the size of its image, and clip what lies outside.

    Args:
        box: In pixels.
        width: Of the image.
        height: Of the image.
        owner: Names the object in an error.
        strict: Refuse a box of which some lies outside.

    Raises:
        InputError: The box or the size is no finite number, or nothing of the box is inside.
    """
    if not (all(map(math.isfinite, (*box, width, height))) and width > 0 and height > 0):
        raise InputError(
            "a box and an image size in numbers",
            f"{box} in {width} x {height} pixels ({owner})",
            "Correct the annotation.",
        )
    xmin, xmax = (min(max(x / width, 0.0), 1.0) for x in (box[0], box[2]))
    ymin, ymax = (min(max(y / height, 0.0), 1.0) for y in (box[1], box[3]))
    whole = min(box) >= 0 and box[2] <= width and box[3] <= height
    if not (xmin < xmax and ymin < ymax) or (strict and not whole):
        raise InputError(
            f"a box with xmin < xmax and ymin < ymax inside {width:g} x {height:g} pixels",
            f"{box} ({owner})",
            "Correct the annotation.",
        )
    return xmin, ymin, xmax, ymax


def image_size(path: str) -> tuple[int, int]:
    """Return the width and height that the header of an image file tells.

    Raises:
        InputError: The file is missing or no image.
    """
    try:
        data = locate(path).read_bytes()
        reason = check_image(data)
        if reason is not None:
            raise ValueError(reason)
        return size_of_image(data)
    except (OSError, ValueError) as exc:
        raise InputError(
            "an image file that every host can read", f"{path!r} ({exc})", "Check the file."
        ) from exc
