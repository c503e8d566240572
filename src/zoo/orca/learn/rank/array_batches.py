"""Batches as numpy arrays, for the frameworks that are fed with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.orca.data.tensors.plan import TensorPlan, TensorSpec
from zoo.orca.learn.rank.feed import TensorFeed

__all__ = ["ArrayBatches", "Arrays", "Batch", "zeros"]

Arrays = tuple[np.ndarray, ...] | Mapping[str, np.ndarray]
"""Features or targets: in their order, or by name."""


@dataclass(frozen=True)
class Batch:
    """What the model is called with and what the loss compares with.

    Attributes:
        features: Inputs of the model.
        targets: Targets of the loss; may be empty.
        rows: Rows of the batch.
        weights: What each row weighs in the loss, shape (rows,); None for 1.
    """

    features: Arrays
    targets: Arrays
    rows: int
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, plan: TensorPlan, arrays: Sequence[np.ndarray], rows: int) -> Batch:
        """The batch that these arrays of a plan are."""
        features, targets, factors = plan.split(arrays)
        return cls(features, targets, rows, None if factors is None else factors.prod(1))

    @property
    def weight(self) -> float:
        """What the rows weigh together."""
        return float(self.rows if self.weights is None else self.weights.sum(dtype=np.float64))


class ArrayBatches:
    """Batches that are views of a stretch gathered from shards.

    Args:
        feed: The rows of this rank.
        plan: Of its tensors.
    """

    def __init__(self, feed: TensorFeed, plan: TensorPlan) -> None:
        self._feed, self._plan = feed, plan
        self.steps: int | None = feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        for starts, arrays in self._feed.epoch(epoch, start):
            for low, high in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                parts = [array[low:high] for array in arrays]
                yield Batch.of(self._plan, parts, high - low) if high > low else None

    def example(self) -> Batch:
        """Two made-up rows of the same types and shapes, which every rank can make."""
        arrays = [zeros(spec, 2) for spec in self._plan.tensors]
        if self._plan.weight is not None:
            arrays[-1] += 1.0
        return Batch.of(self._plan, arrays, 2)


def zeros(spec: TensorSpec, rows: int) -> np.ndarray:
    """Rows of zeros, or of empty texts."""
    shape = (rows, *(spec.shape or ()))
    if spec.dtype == "object":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=spec.dtype)
