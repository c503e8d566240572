"""What a step of an `ImagePipeline` is: from picture to picture, or from array to array.

A step of one's own is a small frozen dataclass that derives from `PictureStep` or `ArrayStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import CHANNELS, MAX_PIXELS
from zoo.orca.data.image.steps.boxes import Boxes

__all__ = [
    "RESAMPLING",
    "Array",
    "ArrayStep",
    "Colour",
    "FixedSize",
    "Generator",
    "Picture",
    "PictureStep",
    "RandomApply",
    "SameSize",
    "Size",
    "Step",
    "check_fill",
    "check_numbers",
    "check_pixels",
    "check_resample",
    "check_sides",
    "colour_of",
    "happens",
    "window_of",
]

Picture: TypeAlias = Image.Image
Generator: TypeAlias = np.random.Generator
Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]
"""(width, height), as Pillow has it."""
Colour: TypeAlias = int | Sequence[int]
"""A number for every channel, or a number for each."""

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
"""How pixels of a new size are made, by name."""


class Step:
    """A step of a pipeline; subclasses are small frozen dataclasses, so that they pickle."""

    @property
    def random(self) -> bool:
        """Whether the step draws from the generator it is given."""
        return False

    def without_chance(self) -> tuple[Step, ...]:
        """What takes the step's place when a model is evaluated: itself, or nothing if random."""
        return () if self.random else (self,)

    def check(self, mode: str) -> None:
        """Refuse pictures of a mode that the settings do not fit.

        Raises:
            InputError: They do not.
        """
        colour = getattr(self, "fill", 0)
        if not isinstance(colour, int) and len(colour) != CHANNELS[mode]:
            raise InputError(
                f"a fill of one number or {CHANNELS[mode]} for mode {mode!r}",
                repr(colour),
                f"Correct {type(self).__name__}.",
            )


class PictureStep(Step, ABC):
    """A step from a picture to a picture."""

    @abstractmethod
    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Return the new picture and the boxes on it; the one given stays as it is."""

    def size_after(self, size: Size | None) -> Size | None:
        """The size of the new picture, from that of the old one; None when it is not known."""
        return None


class ArrayStep(Step, ABC):
    """A step from an array to an array."""

    @abstractmethod
    def apply(
        self, array: Array, boxes: Boxes | None, rng: Generator
    ) -> tuple[Array, Boxes | None]:
        """Return the new array, which may be the given one, and the boxes."""

    def shape_after(self, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The shape of the new array, from that of the old one; None when it is not known."""
        return None

    def dtype_after(self, dtype: np.dtype[Any] | None) -> np.dtype[Any] | None:
        """The type of the new array, from that of the old one; None when it is not known."""
        return None


class SameSize(PictureStep):
    """A step that changes no size."""

    def size_after(self, size: Size | None) -> Size | None:
        """The same."""
        return size


class FixedSize(PictureStep):
    """A step whose pictures all have one size, which its fields `height` and `width` say."""

    height: int
    width: int | None

    @property
    def size(self) -> Size:
        """The size; without a width, a square."""
        return self.width or self.height, self.height

    def size_after(self, size: Size | None) -> Size:
        """Always the one size."""
        return self.size


@dataclass(frozen=True)
class RandomApply(PictureStep):
    """Do another picture step sometimes.

    Args:
        step: The other step.
        probability: How often.
    """

    step: PictureStep
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, 0, 1, "probability")
        if not isinstance(self.step, PictureStep):
            raise InputError(
                "a picture step", repr(self.step), "Give a step such as RandomRotation(10)."
            )

    @property
    def random(self) -> bool:
        """Whether chance decides, here or in the step."""
        return 0 < self.probability < 1 or (self.probability > 0 and self.step.random)

    def without_chance(self) -> tuple[Step, ...]:
        """What takes the step's place, if it is done always; otherwise nothing."""
        if self.probability == 1:
            return self.step.without_chance()
        return super().without_chance()

    def check(self, mode: str) -> None:
        """As the step says."""
        self.step.check(mode)

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Do the step, or leave it."""
        if not happens(self.probability, rng):
            return image, boxes
        return self.step.apply(image, boxes, rng)

    def size_after(self, size: Size | None) -> Size | None:
        """Known when the step changes nothing, or is done always or never."""
        after = self.step.size_after(size) if self.probability > 0 else size
        return after if after == size or self.probability == 1 else None


def check_sides(step: Any, *names: str) -> None:
    """Refuse fields that are no number of pixels, or None where the class allows it.

    Raises:
        InputError: One of them is not.
    """
    for name in names:
        value = getattr(step, name)
        optional = getattr(type(step), name, 0) is None
        if value is None and optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_PIXELS:
            raise InputError(
                f"{name} of {type(step).__name__} as a number of pixels, from 1",
                repr(value),
                "Give a positive int.",
            )


def check_fill(step: Any) -> None:
    """Refuse a `fill` that is no colour, and make a tuple of a list.

    Raises:
        InputError: It is not.
    """
    fill = step.fill
    channels = [fill] if not isinstance(fill, list | tuple) else list(fill)
    if not channels or not all(isinstance(c, int) and 0 <= c <= 255 for c in channels):
        raise InputError("fill as numbers from 0 to 255", repr(fill), "Give 0, say.")
    if not isinstance(fill, int):
        object.__setattr__(step, "fill", tuple(channels))


def check_numbers(step: Any, low: float, high: float, *names: str) -> None:
    """Refuse fields that are no numbers of a range.

    Raises:
        InputError: One of them is not.
    """
    for name in names:
        value = getattr(step, name)
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        # NaN fails the comparison, too.
        if not number or not low <= value <= high:
            raise InputError(
                f"{name} of {type(step).__name__} as a number from {low:g} to {high:g}",
                repr(value),
                "Give a number of this range.",
            )


def check_resample(name: str, known: Sequence[str] = tuple(RESAMPLING)) -> None:
    """Refuse a way of resampling that is not known.

    Raises:
        InputError: It is not.
    """
    if not isinstance(name, str) or name not in known:
        raise InputError(f"resample as one of {sorted(known)}", repr(name), "Choose one of them.")


def check_pixels(step: Step, size: Size) -> Size:
    """Return a size, or refuse it when a picture of it would fill the memory.

    Raises:
        InputError: It has too many pixels.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"an image that {type(step).__name__} makes no larger than {MAX_PIXELS} pixels",
            f"one that would have {size[0]} x {size[1]}",
            "Remove the image, or change the step.",
        )
    return size


def happens(probability: float, rng: Generator) -> bool:
    """Draw, unless it is certain or impossible."""
    if probability in (0, 1):
        return bool(probability)
    return bool(rng.random() < probability)


def colour_of(fill: Colour, mode: str) -> int | tuple[int, ...]:
    """A colour as Pillow wants it for a mode; one number for all leaves alpha opaque."""
    if not isinstance(fill, int):
        return tuple(fill) if len(fill) > 1 else int(fill[0])
    if mode == "L":
        return fill
    return (fill, fill, fill, 255)[: CHANNELS[mode]]


def window_of(
    image: Picture, boxes: Boxes | None, at: tuple[int, int], size: Size, fill: Colour = 0
) -> tuple[Picture, Boxes | None]:
    """Cut a window out; where it reaches beyond the picture, it is filled.

    Args:
        image: The picture.
        boxes: What moves along.
        at: The left and top of the window in the picture; negative ones lie outside.
        size: The size of the window.
        fill: The colour outside.
    """
    (left, top), (width, height) = at, size
    if (left, top, width, height) == (0, 0, *image.size):
        return image, boxes
    if boxes is not None:
        whole = image.size
        boxes = boxes.cropped(left / whole[0], top / whole[1], width / whole[0], height / whole[1])
    right, bottom = left + width, top + height
    if left >= 0 and top >= 0 and right <= image.width and bottom <= image.height:
        return image.crop((left, top, right, bottom)), boxes
    ground = Image.new(image.mode, size, colour_of(fill, image.mode))
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if inside[0] < inside[2] and inside[1] < inside[3]:
        ground.paste(image.crop(inside), (inside[0] - left, inside[1] - top))
    return ground, boxes
