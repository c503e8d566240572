"""Outlines of objects as COCO has them, polygons or run lengths, as far as boxes go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["box_around", "unpacked_runs"]


def box_around(outline: Any) -> list[float]:
    """The smallest upright box around an outline, as x, y, width, height in pixels.

    Args:
        outline: Polygons, each as x, y, x, y, ...; or run lengths: `size` (height, width) and
            `counts` of pixels without and with the object in turn, column by column.

    Returns:
        The box; zeros for an outline around nothing.

    Raises:
        ValueError: It is neither.

    Example:
        >>> box_around([[1, 2, 5, 2, 5, 4]])
        [1.0, 2.0, 4.0, 2.0]
    """
    if isinstance(outline, Mapping):
        low, high = _run_corners(outline["counts"], int(outline["size"][0]))
    else:
        if not outline or not all(polygon and len(polygon) % 2 == 0 for polygon in outline):
            raise ValueError(f"polygons without points, or with a half one: {outline!r:.80}")
        points = np.array([value for polygon in outline for value in polygon], float).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
    return [float(value) for value in (*low, *(high - low))]


def _run_corners(counts: str | Sequence[int], height: int) -> tuple[np.ndarray, np.ndarray]:
    runs = unpacked_runs(counts) if isinstance(counts, str) else list(counts)
    ends = np.cumsum(runs)
    first, last = ends[0::2][: len(ends) // 2], ends[1::2] - 1
    first, last = first[first <= last], last[first <= last]
    if not len(first):
        return np.zeros(2), np.zeros(2)
    left, right = first // height, last // height
    # A run that goes on in the next column reaches the edges between them.
    whole = left < right
    top, bottom = np.where(whole, 0, first % height), np.where(whole, height - 1, last % height)
    return np.array([left.min(), top.min()]), np.array([right.max(), bottom.max()]) + 1


def unpacked_runs(text: str) -> list[int]:
    """Run lengths that are written as text.

    Each number is cut into groups of five bits, lowest first, and a group is a character from "0"
    on; bit five says that more follow, bit four of the last is the sign. From the fourth on, what
    is written is the difference to the number two places before.

    Raises:
        ValueError: The text ends inside a number, or holds other characters.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{character!r} among run lengths")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (group & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("run lengths that end inside a number")
    return runs
