"""What ranks add up in every step, as flat arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.orca.learn.steps import GradientLimits

__all__ = ["FlatArrays", "clip"]


class FlatArrays:
    """Arrays side by side, one flat array for each of their types.

    Args:
        specs: Type and shape of each.

    Attributes:
        arrays: The flat ones.
        views: Parts of these, in the shapes that were given.
    """

    def __init__(self, specs: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        sizes = [math.prod(shape) for _, shape in specs]
        total: dict[str, int] = {}
        for (dtype, _), size in zip(specs, sizes, strict=True):
            total[dtype] = total.get(dtype, 0) + size
        flats = {dtype: np.zeros(size, dtype) for dtype, size in total.items()}
        self.arrays = [flat for flat in flats.values() if flat.size]
        self.views, at = [], dict.fromkeys(total, 0)
        for (dtype, shape), size in zip(specs, sizes, strict=True):
            self.views.append(flats[dtype][at[dtype] : at[dtype] + size].reshape(shape))
            at[dtype] += size

    def clear(self) -> None:
        """Nothing from this rank."""
        for array in self.arrays:
            array[:] = 0.0

    def gather(self, values: Sequence[np.ndarray], factor: float = 1.0) -> None:
        """Copy values in, each times a factor."""
        for view, value in zip(self.views, values, strict=True):
            np.multiply(value, factor, out=view, casting="unsafe")

    def divide(self, divisor: float) -> None:
        """Make means of sums."""
        if divisor != 1.0:
            for array in self.arrays:
                array /= divisor


def clip(arrays: Sequence[np.ndarray], limits: GradientLimits) -> None:
    """Clip gradients in place, the same on every rank: first their norm, then each element."""
    if limits.norm is not None:
        norm = math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))
        if norm > limits.norm:
            for array in arrays:
                array *= limits.norm / norm
    if limits.low is not None or limits.high is not None:
        for array in arrays:
            np.clip(array, limits.low, limits.high, out=array)
