"""Boxes around objects, moved along when their picture is cut, padded, flipped or turned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

__all__ = ["Boxes", "FloatArray"]

FloatArray = npt.NDArray[np.floating[Any]]
_EXPECTED = "boxes as rows of xmin, ymin, xmax, ymax (relative to the image) and more columns"


@dataclass(frozen=True)
class Boxes:
    """The boxes of one picture, in double precision on their way through the steps.

    Attributes:
        corners: Rows of xmin, ymin, xmax, ymax from 0 to 1: relative to the picture's size.
        extra: The columns behind them, such as a class, which no step changes.
        visible: How much of each box's area is still in the picture, from 0 to 1.
    """

    corners: FloatArray
    extra: FloatArray
    visible: FloatArray

    @classmethod
    def of(cls, rows: npt.ArrayLike) -> Boxes:
        """Take boxes as data sets store them; what lies outside the picture is cut off.

        Raises:
            InputError: They are no rows of four or more numbers, or the corners are swapped.
        """
        try:
            table = np.asarray(rows, np.float64)
        except (TypeError, ValueError) as exc:
            raise _refused(f"{type(rows).__name__} ({exc})") from exc
        if table.size == 0:
            table = table.reshape(0, max(4, table.shape[-1]) if table.ndim == 2 else 4)
        if table.ndim != 2 or table.shape[1] < 4:
            raise _refused(f"an array of shape {table.shape}")
        corners = table[:, :4]
        # NaN fails the comparison, too.
        good = (corners[:, :2] <= corners[:, 2:]).all(axis=1) & np.isfinite(corners).all(axis=1)
        if not good.all():
            raise _refused(str(corners[~good][0].tolist()))
        start = cls(corners, table[:, 4:], (_areas(corners) > 0).astype(np.float64))
        return start._clipped(corners)

    def cropped(self, left: float, top: float, width: float, height: float) -> Boxes:
        """Move to a window of the picture, whose place and size are relative to the picture.

        A window that reaches beyond the picture pads it.
        """
        origin, scale = np.array([left, top] * 2), np.array([width, height] * 2)
        return self._clipped((self.corners - origin) / scale)

    def flipped(self, *, vertical: bool = False) -> Boxes:
        """Mirror left and right, or top and bottom."""
        corners = self.corners.copy()
        low, high = (1, 3) if vertical else (0, 2)
        corners[:, low], corners[:, high] = 1 - self.corners[:, high], 1 - self.corners[:, low]
        return replace(self, corners=corners)

    def rotated(self, degrees: float, width: int, height: int) -> Boxes:
        """Turn counter-clockwise around the centre of a picture of this size in pixels.

        Each box becomes the smallest upright one around its turned self.
        """
        x = (self.corners[:, [0, 2, 0, 2]] - 0.5) * width
        y = (self.corners[:, [1, 1, 3, 3]] - 0.5) * height
        sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        turned_x = (x * cos + y * sin) / width + 0.5
        turned_y = (y * cos - x * sin) / height + 0.5
        low = np.stack([turned_x.min(axis=1), turned_y.min(axis=1)], axis=1)
        high = np.stack([turned_x.max(axis=1), turned_y.max(axis=1)], axis=1)
        return self._clipped(np.concatenate([low, high], axis=1))

    def moved(self, corners: FloatArray, kept: npt.NDArray[np.integer[Any]]) -> Boxes:
        """Take new corners for some of the boxes, which `kept` numbers; the others go."""
        some = replace(self, extra=self.extra[kept], visible=self.visible[kept])
        return some._clipped(corners)

    def rows(self, min_visible: float = 0.0) -> npt.NDArray[np.float32]:
        """Return float32 rows as they came in, without the boxes of which too little is left.

        Args:
            min_visible: The share of its area that must still be in the picture; a box of which
                nothing is left goes in any case.
        """
        kept = (self.visible > 0) & (self.visible >= min_visible)
        return np.concatenate([self.corners, self.extra], axis=1)[kept].astype(np.float32)

    def _clipped(self, corners: FloatArray) -> Boxes:
        inside = np.clip(corners, 0.0, 1.0)
        before, after = _areas(corners), _areas(inside)
        share = np.divide(after, before, out=np.zeros_like(after), where=before > 0)
        return replace(self, corners=inside, visible=self.visible * share)


def _areas(corners: FloatArray) -> FloatArray:
    areas: FloatArray = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return areas


def _refused(received: str) -> InputError:
    return InputError(_EXPECTED, received, "Correct the column of boxes.")
