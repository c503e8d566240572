"""A sample of pairs of numbers that does not hang on how the data was split.

Each pair has a key that follows from its two numbers and is as good as drawn by chance; the sample
has the pairs with the lowest keys. So the sample of two samples is that of all their data.
"""

from __future__ import annotations

import numpy as np

__all__ = ["sample_of"]


def sample_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the pairs, in the order of their keys.

    Args:
        pairs: Of shape (rows, 2), in double precision.
        count: How many to keep.
    """
    bits = np.ascontiguousarray(pairs, np.float64).view(np.uint64)
    keys = _mixed(_mixed(bits[:, 0]) ^ bits[:, 1])
    chosen: np.ndarray = pairs[np.argsort(keys, kind="stable")[:count]]
    return chosen


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Other bits in a one-to-one way, each of which hangs on all that came (SplitMix64)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed
