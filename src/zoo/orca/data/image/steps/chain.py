"""How the steps of a pipeline follow one another, and what comes out at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.steps.apply import Apply
from zoo.orca.data.image.steps.arrays import Layout, Normalize, ToArray, ToNormalized
from zoo.orca.data.image.steps.forms import as_array, as_picture
from zoo.orca.data.image.steps.step import ArrayStep, PictureStep, Step
from zoo.orca.data.image.steps.transform_libraries import is_albumentations, is_torchvision

__all__ = ["Ending", "check_steps", "fused", "given_to", "placed", "tried"]

_log = logging.getLogger(__name__)

# Of two forms, and large enough for the crops of most.
_TRIALS = ((640, 480), (500, 700))


def check_steps(steps: Sequence[Any], mode: str) -> None:
    """Refuse steps that cannot follow one another.

    Raises:
        InputError: They cannot, or one is no step.
    """
    arrays_from: str | None = None
    free = False  # whether a function may have made an array before
    for step in steps:
        name = type(step).__name__
        if not isinstance(step, PictureStep | ToArray | ArrayStep | Apply):
            raise InputError(
                "steps such as Resize(224, 224), each made from its class, or functions",
                step.__name__ + " itself" if isinstance(step, type) else name,
                "See zoo.orca.data.image.transforms.",
            )
        if arrays_from and isinstance(step, PictureStep | ToArray):
            raise InputError(
                "picture steps, then one of ToCHW and ToHWC, then array steps",
                f"{name} behind {arrays_from}",
                f"Move {name} to the front." if isinstance(step, PictureStep) else "Drop one.",
            )
        if isinstance(step, ArrayStep) and not arrays_from:
            _check_free(step, free)
        arrays_from = name if isinstance(step, ToArray) else arrays_from
        free = free or isinstance(step, Apply)
        if isinstance(step, Apply):
            _check_layout(step, arrays_from)
        step.check(mode)


def _check_free(step: ArrayStep, free: bool) -> None:
    name = type(step).__name__
    if not free:
        raise InputError(
            f"an array for {name}", "a picture", f"Put ToCHW() or ToHWC() before {name}."
        )
    if isinstance(step, Normalize) and step.layout is None:
        raise InputError(
            "a layout for Normalize behind a function",
            "None",
            "Say layout='CHW' if it makes a tensor, 'HWC' if it makes an array.",
        )


def _check_layout(step: Apply, arrays_from: str | None) -> None:
    wanted = None
    if is_torchvision(step.function):
        wanted = "ToCHW"
    elif is_albumentations(step.function):
        wanted = "ToHWC"
    if wanted and arrays_from not in (None, wanted):
        raise InputError(
            f"{wanted} before {step.function!r}", str(arrays_from), "Take the other one."
        )


def placed(steps: Sequence[Step], min_visible: float) -> tuple[Step, ...]:
    """The steps that have to know the layout of the arrays, with it."""
    found: list[Step] = []
    layout: Layout | None = None
    for step in steps:
        if isinstance(step, ToArray):
            layout = step.layout
        if isinstance(step, Normalize) and step.layout is None:
            step = replace(step, layout=layout)
        if isinstance(step, Apply):
            step = step.placed(layout, min_visible)
        found.append(step)
    return tuple(found)


def fused(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps as they run: `Normalize` directly behind `ToCHW` or `ToHWC` is part of it."""
    chain: list[Step] = []
    for step in steps:
        if isinstance(step, Normalize) and chain and isinstance(chain[-1], ToArray):
            step = ToNormalized(chain.pop(), step)  # type: ignore[arg-type]
        chain.append(step)
    return tuple(chain)


def given_to(step: Step, image: Any) -> Any:
    """An image in the form that a step takes.

    Raises:
        InputError: The image has no such form.
    """
    if isinstance(step, Apply):
        return image
    return as_array(image) if isinstance(step, ArrayStep) else as_picture(image)


class Ending(NamedTuple):
    """What comes out of a pipeline in trials.

    Attributes:
        shape: That of all arrays, or None.
        dtype: Theirs, or None.
    """

    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None


def tried(steps: Sequence[Step], mode: str) -> tuple[tuple[Step, ...], Ending]:
    """Take pictures of noise through steps, to see what the functions among them do.

    Returns:
        The steps, where each `Apply` knows what it does as far as trials came; and their end.
    """
    known, rng = list(steps), np.random.default_rng(0)
    arrays = []
    for width, height in _TRIALS:
        noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        image: Any = Image.fromarray(noise).convert(mode)
        try:
            for at, step in enumerate(known):
                if isinstance(step, Apply):
                    image, known[at] = step.tried(image)
                else:
                    run: Any = step
                    image, _ = run.apply(given_to(step, image), None, rng)
            arrays.append(as_array(image))
        except Exception as exc:  # noqa: BLE001 - noise may be what a function cannot work on
            _log.debug("No trial of %s: %r", known, exc)
            return tuple(known), Ending()
    shapes, dtypes = {array.shape for array in arrays}, {array.dtype for array in arrays}
    return tuple(known), Ending(
        shapes.pop() if len(shapes) == 1 else None, dtypes.pop() if len(dtypes) == 1 else None
    )
