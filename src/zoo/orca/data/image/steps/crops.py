"""Steps that cut, pad, flip and turn a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.resizing import ResizeShorter
from zoo.orca.data.image.steps.step import (
    RESAMPLING,
    Colour,
    FixedSize,
    Generator,
    Picture,
    PictureStep,
    SameSize,
    Size,
    Step,
    check_fill,
    check_numbers,
    check_pixels,
    check_resample,
    check_sides,
    colour_of,
    happens,
    window_of,
)

__all__ = [
    "CenterCrop",
    "Crop",
    "Pad",
    "RandomCrop",
    "RandomExpand",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
]

_ATTEMPTS = 10


@dataclass(frozen=True)
class CenterCrop(FixedSize):
    """Cut the middle out; a side that is too short is padded evenly.

    Args:
        height: In pixels.
        width: In pixels; None for a square.
        fill: Colour of padding.
    """

    height: int
    width: int | None = None
    fill: Colour = 0

    def __post_init__(self) -> None:
        check_sides(self, "height", "width")
        check_fill(self)

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Picture, Boxes | None]:
        """Cut."""
        width, height = self.size
        at = (image.width - width) // 2, (image.height - height) // 2
        return window_of(image, boxes, at, (width, height), self.fill)


@dataclass(frozen=True)
class Crop(PictureStep):
    """Cut a fixed part out, given as shares of the picture from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        check_numbers(self, 0, 1, "left", "top", "right", "bottom")
        if self.left >= self.right or self.top >= self.bottom:
            raise InputError("left < right and top < bottom", repr(self), "Give them in order.")

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Picture, Boxes | None]:
        """Cut at the nearest pixels, and at least one of them."""
        left, width = _pixels_of(self.left, self.right, image.width)
        top, height = _pixels_of(self.top, self.bottom, image.height)
        return window_of(image, boxes, (left, top), (width, height))

    def size_after(self, size: Size | None) -> Size | None:
        """Known when that of the picture is."""
        if size is None:
            return None
        return (
            _pixels_of(self.left, self.right, size[0])[1],
            _pixels_of(self.top, self.bottom, size[1])[1],
        )


@dataclass(frozen=True)
class RandomCrop(FixedSize):
    """Cut a part of one size out, anywhere; a side that is too short is padded evenly.

    Args:
        height: In pixels.
        width: In pixels; None for a square.
        padding: How many pixels the part may reach beyond the picture on each side.
        fill: Colour of padding.
    """

    height: int
    width: int | None = None
    padding: int = 0
    fill: Colour = 0

    def __post_init__(self) -> None:
        check_sides(self, "height", "width")
        check_fill(self)
        if not isinstance(self.padding, int) or self.padding < 0:
            raise InputError("padding as a number of pixels", repr(self.padding), "Give 0 or more.")

    def without_chance(self) -> tuple[Step, ...]:
        """The middle of the picture."""
        return (CenterCrop(self.height, self.width, self.fill),)

    @property
    def random(self) -> bool:
        """It always draws."""
        return True

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Cut."""
        size = self.size
        left, top = (
            _anywhere(whole, part, self.padding, rng)
            for whole, part in zip(image.size, size, strict=True)
        )
        return window_of(image, boxes, (left, top), size, self.fill)


@dataclass(frozen=True)
class RandomResizedCrop(FixedSize):
    """Cut a part of random area and ratio out, and resize it to one size.

    Args:
        height: In pixels.
        width: In pixels; None for a square.
        scale: Least and greatest share of the picture's area.
        ratio: Least and greatest width divided by height.
        resample: As in `Resize`.
    """

    height: int
    width: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        check_sides(self, "height", "width")
        check_resample(self.resample)
        for name, most in (("scale", 1.0), ("ratio", 1000.0)):
            object.__setattr__(self, name, _range(name, getattr(self, name), most))

    def without_chance(self) -> tuple[Step, ...]:
        """The middle seven eighths of the picture, the usual partner of this step."""
        longer = max(self.height, self.width or self.height)
        whole = ResizeShorter(-(-longer * 8 // 7), resample=self.resample)
        return whole, CenterCrop(self.height, self.width)

    @property
    def random(self) -> bool:
        """It always draws."""
        return True

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Cut and resize in one go."""
        left, top, width, height = self._part(image.size, rng)
        if boxes is not None:
            boxes = boxes.cropped(
                left / image.width, top / image.height, width / image.width, height / image.height
            )
        box = (left, top, left + width, top + height)
        how = RESAMPLING[self.resample]
        return image.resize(self.size, how, box=box, reducing_gap=2.0), boxes

    def _part(self, size: Size, rng: Generator) -> tuple[int, int, int, int]:
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_ATTEMPTS):
            area = size[0] * size[1] * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= size[0] and 0 < height <= size[1]:
                left = int(rng.integers(size[0] - width + 1))
                return left, int(rng.integers(size[1] - height + 1)), width, height
        # A very long or small picture: its middle, in the nearest ratio that is allowed.
        width = min(size[0], max(1, round(size[1] * self.ratio[1])))
        height = min(size[1], max(1, round(size[0] / self.ratio[0])))
        return (size[0] - width) // 2, (size[1] - height) // 2, width, height


@dataclass(frozen=True)
class Pad(PictureStep):
    """Add pixels at the sides.

    Args:
        left: Pixels there; and so on.
        top: The same.
        right: The same.
        bottom: The same.
        fill: Their colour.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    fill: Colour = 0

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        if not all(isinstance(side, int) and side >= 0 for side in sides):
            raise InputError("sides as numbers of pixels", repr(sides), "Give ints from 0.")
        check_fill(self)

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Picture, Boxes | None]:
        """Pad."""
        at = -self.left, -self.top
        return window_of(image, boxes, at, check_pixels(self, self._grown(image.size)), self.fill)

    def size_after(self, size: Size | None) -> Size | None:
        """Known when that of the picture is."""
        return self._grown(size) if size else None

    def _grown(self, size: Size) -> Size:
        return size[0] + self.left + self.right, size[1] + self.top + self.bottom


@dataclass(frozen=True)
class RandomExpand(PictureStep):
    """Put the picture anywhere on a larger ground, so that its objects get smaller.

    Args:
        most: The greatest factor of the sides.
        probability: How often it happens.
        fill: Colour of the ground.
    """

    most: float = 4.0
    probability: float = 0.5
    fill: Colour = 0

    def __post_init__(self) -> None:
        check_numbers(self, 0, 1, "probability")
        check_numbers(self, 1, 100, "most")
        check_fill(self)

    @property
    def random(self) -> bool:
        """Whether it can happen."""
        return self.probability > 0 and self.most > 1

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Expand, or leave it."""
        if not happens(self.probability, rng):
            return image, boxes
        factor = rng.uniform(1, self.most)
        width, height = round(image.width * factor), round(image.height * factor)
        size = check_pixels(self, (width, height))
        left = -int(rng.integers(width - image.width + 1))
        top = -int(rng.integers(height - image.height + 1))
        return window_of(image, boxes, (left, top), size, self.fill)

    def size_after(self, size: Size | None) -> Size | None:
        """Known when nothing happens."""
        return None if self.random else size


@dataclass(frozen=True)
class RandomFlip(SameSize):
    """Mirror the picture.

    Args:
        probability: How often it happens; 1.0 flips always.
        direction: "horizontal" swaps left and right, "vertical" top and bottom.
    """

    probability: float = 0.5
    direction: Literal["horizontal", "vertical"] = "horizontal"

    def __post_init__(self) -> None:
        check_numbers(self, 0, 1, "probability")
        if self.direction not in ("horizontal", "vertical"):
            raise InputError(
                "direction 'horizontal' or 'vertical'", repr(self.direction), "Choose one of them."
            )

    @property
    def random(self) -> bool:
        """Whether chance decides."""
        return 0 < self.probability < 1

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Flip, or leave it."""
        if not happens(self.probability, rng):
            return image, boxes
        vertical = self.direction == "vertical"
        how = Image.Transpose.FLIP_TOP_BOTTOM if vertical else Image.Transpose.FLIP_LEFT_RIGHT
        return image.transpose(how), boxes and boxes.flipped(vertical=vertical)


@dataclass(frozen=True)
class RandomRotation(SameSize):
    """Turn the picture around its centre; its size stays, and its corners are cut off.

    A box becomes the smallest upright box around its turned self.

    Args:
        degrees: The greatest angle, in both directions.
        fill: Colour of the corners.
        resample: "nearest", "bilinear" or "bicubic".
    """

    degrees: float
    fill: Colour = 0
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        check_fill(self)
        check_numbers(self, 0, 180, "degrees")
        check_resample(self.resample, ("nearest", "bilinear", "bicubic"))

    @property
    def random(self) -> bool:
        """Whether it turns at all."""
        return self.degrees > 0

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Turn."""
        if not self.random:
            return image, boxes
        angle = rng.uniform(-self.degrees, self.degrees)
        turned = image.rotate(
            angle, RESAMPLING[self.resample], fillcolor=colour_of(self.fill, image.mode)
        )
        return turned, boxes and boxes.rotated(angle, *image.size)


def _pixels_of(low: float, high: float, whole: int) -> tuple[int, int]:
    """The first pixel and the number of pixels of a share of a side."""
    first = min(round(low * whole), whole - 1)
    return first, max(1, round(high * whole) - first)


def _anywhere(whole: int, part: int, padding: int, rng: Generator) -> int:
    room = whole + 2 * padding - part
    if room < 0:
        return (whole - part) // 2
    return int(rng.integers(room + 1)) - padding


def _range(name: str, given: tuple[float, float], most: float) -> tuple[float, float]:
    pair = tuple(given) if isinstance(given, tuple | list) else ()
    numbers = len(pair) == 2 and all(isinstance(n, int | float | np.number) for n in pair)
    if not numbers or not 0 < pair[0] <= pair[1] <= most:
        raise InputError(
            f"{name} as (least, greatest), above 0 and up to {most:g}",
            repr(given),
            "Give two numbers in order.",
        )
    return pair[0], pair[1]
