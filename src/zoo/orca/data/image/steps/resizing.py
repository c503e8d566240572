"""Steps that resize the whole picture."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.step import (
    RESAMPLING,
    Colour,
    FixedSize,
    Generator,
    Picture,
    PictureStep,
    Size,
    check_fill,
    check_pixels,
    check_resample,
    check_sides,
    window_of,
)

__all__ = ["Letterbox", "Resize", "ResizeShorter", "ResizingStep"]


class ResizingStep(PictureStep):
    """A step that begins by resizing the whole picture.

    As the first step of a pipeline it lets JPEG files be decoded at a fraction of their size.
    """

    resample: str

    @abstractmethod
    def fit(self, size: Size) -> Size:
        """The size to which a picture of this size is resized."""

    def place(self, image: Picture, boxes: Boxes | None) -> tuple[Picture, Boxes | None]:
        """Do what comes after resizing."""
        return image, boxes

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Picture, Boxes | None]:
        """Resize, then `place`."""
        return self.finish(image, image.size, boxes)

    def finish(
        self, image: Picture, size: Size, boxes: Boxes | None
    ) -> tuple[Picture, Boxes | None]:
        """Do the step on a picture that was decoded at a fraction of its size."""
        wanted = check_pixels(self, self.fit(size))
        if image.size != wanted:
            image = image.resize(wanted, RESAMPLING[self.resample], reducing_gap=2.0)
        return self.place(image, boxes)


@dataclass(frozen=True)
class Resize(FixedSize, ResizingStep):
    """Resize to one size, whatever the ratio of the sides.

    Args:
        height: In pixels.
        width: In pixels. It must be given: `ResizeShorter` is for one number.
        resample: "bilinear", "bicubic", "lanczos", "box" or "nearest".
    """

    height: int
    width: int
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        check_sides(self, "height", "width")
        check_resample(self.resample)

    def fit(self, size: Size) -> Size:
        """Always the one size."""
        return self.size


@dataclass(frozen=True)
class ResizeShorter(ResizingStep):
    """Resize so that the shorter side has a length, and keep the ratio of the sides.

    Args:
        side: Pixels of the shorter side.
        longest: The longer side must not pass this; the shorter one gives way.
        resample: As in `Resize`.
    """

    side: int
    longest: int | None = None
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        check_sides(self, "side", "longest")
        check_resample(self.resample)

    def fit(self, size: Size) -> Size:
        """Both sides times the same factor."""
        factor = self.side / min(size)
        if self.longest is not None:
            factor = min(factor, self.longest / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def size_after(self, size: Size | None) -> Size | None:
        """Known when that of the picture is."""
        return self.fit(size) if size else None


@dataclass(frozen=True)
class Letterbox(FixedSize, ResizingStep):
    """Resize so that the whole picture fits in, keep its ratio, and fill the rest evenly.

    Args:
        height: In pixels.
        width: In pixels; None for a square.
        fill: Colour of the bars.
        resample: As in `Resize`.
    """

    height: int
    width: int | None = None
    fill: Colour = 114
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        check_sides(self, "height", "width")
        check_fill(self)
        check_resample(self.resample)

    def fit(self, size: Size) -> Size:
        """The largest size inside."""
        width, height = self.size
        factor = min(width / size[0], height / size[1])
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def place(self, image: Picture, boxes: Boxes | None) -> tuple[Picture, Boxes | None]:
        """Put the picture in the middle of the bars."""
        width, height = self.size
        at = (image.width - width) // 2, (image.height - height) // 2
        return window_of(image, boxes, at, (width, height), self.fill)
