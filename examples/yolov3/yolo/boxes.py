"""Boxes: what is refused, how much they overlap, how they move into a square, which are doubles."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image import ImagePipeline
from zoo.orca.data.image.transforms import Letterbox, ToHWC

__all__ = [
    "Array",
    "Letterboxed",
    "check_boxes",
    "iou",
    "letterbox",
    "nms",
    "picture_size",
    "square_pixels",
]

Array = npt.NDArray[np.floating]


def check_boxes(rows: npt.ArrayLike, classes: int, owner: str) -> Array:
    """Return the objects of an image, or refuse them: a bad box makes a loss that is no number.

    Args:
        rows: (objects, 5): corners from 0 to 1, relative to the image, and the class.
        classes: How many classes there are.
        owner: Names the image in the error.

    Raises:
        InputError: Corners are swapped, a box has no area or lies outside, or there is no such
            class.
    """
    table = np.asarray(rows, np.float32)
    if table.ndim != 2 or table.shape[1] != 5:
        raise InputError("rows of four corners and a class", f"{table.shape} ({owner})", "Mend it.")
    low, high, number = table[:, :2], table[:, 2:4], table[:, 4]
    whole = (number >= 0) & (number < classes) & (number == np.floor(number))
    # NaN fails each comparison, too.
    good = (low >= 0).all(1) & (low < high).all(1) & (high <= 1).all(1) & whole
    if not good.all():
        raise InputError(
            "boxes with xmin < xmax and ymin < ymax inside the image (0 to 1), and a class from 0 "
            f"to {classes - 1}",
            f"{table[~good][0].tolist()} ({owner})",
            "Correct the annotation.",
        )
    return table


def iou(one: Array, other: Array, pixel: float = 0.0) -> Array:
    """Intersection over union of each box with each other one.

    Args:
        one: (n, 4) corners.
        other: (m, 4) corners, in the same unit.
        pixel: What is added to a side: 1 where corners are pixels that belong to the box, as VOC
            counts.

    Returns:
        (n, m) from 0 to 1; 0 where both boxes have no area.
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:4], other[None, :, 2:4])
    shared = np.prod(np.maximum(high - low + pixel, 0.0), axis=-1)
    areas = [np.prod(boxes[:, 2:4] - boxes[:, :2] + pixel, axis=-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def nms(
    boxes: Array, scores: Array, numbers: Array, most_iou: float = 0.45
) -> npt.NDArray[np.intp]:
    """Which boxes stay when each takes away those of its class that overlap it and score less.

    Args:
        boxes: (n, 4) corners.
        scores: (n,); of equal ones the first counts as the better.
        numbers: (n,) classes.
        most_iou: Boxes that overlap more than this are the same object.

    Returns:
        Places in `boxes`, the best first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    rival = (iou(boxes, boxes) > most_iou) & (numbers[:, None] == numbers[None])
    kept: list[int] = []
    alive = np.ones(len(boxes), bool)
    for place in order:
        if alive[place]:
            kept.append(place)
            alive &= ~rival[place]
    return np.array(kept, np.intp)


@dataclass(frozen=True)
class Letterboxed:
    """How a picture lies in a square: whole, with its ratio, in the middle of even bars.

    It is what `zoo.orca.data.image.transforms.Letterbox` does, here and wherever images are read.

    Attributes:
        width: Of the picture in pixels.
        height: The same.
        side: Of the square in pixels.
    """

    width: int
    height: int
    side: int

    @property
    def _fitted(self) -> Array:
        return np.array(Letterbox(self.side).fit((self.width, self.height)) * 2, np.float64)

    @property
    def _offset(self) -> Array:
        return -((self._fitted - self.side) // 2)

    def forth(self, boxes: Array) -> Array:
        """Boxes relative to the picture become boxes relative to the square."""
        return (boxes * self._fitted + self._offset) / self.side

    def back(self, boxes: Array) -> Array:
        """Boxes relative to the square become boxes relative to the picture, cut at its edges."""
        return np.clip((boxes * self.side - self._offset) / self._fitted, 0.0, 1.0)


def square_pixels(side: int) -> ImagePipeline:
    """What makes of the bytes of an image what the network takes: (side, side, 3) from 0 to 1."""
    return ImagePipeline(Letterbox(side), ToHWC())


def letterbox(data: bytes, side: int) -> tuple[Array, Letterboxed]:
    """Return the pixels of an image in a square, and how it lies there.

    Raises:
        InputError: The bytes are no image.
    """
    return square_pixels(side)(data), Letterboxed(*picture_size(data), side)


def picture_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that the header of an image tells."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size
