"""Batches of a rank as arrays, from shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.framework import Feed
from zoo.orca.learn.graph.recipe import Port, Recipe
from zoo.orca.learn.rank.feed import TensorFeed

__all__ = ["Batch", "DatasetBatches", "TensorBatches"]


@dataclass(frozen=True)
class Batch:
    """What the graph is fed with.

    Attributes:
        features: For its inputs.
        targets: For its labels; empty when there are none.
        rows: Rows of the batch.
        weights: What each row weighs in the loss, shape (rows,); None for 1.
    """

    features: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]
    rows: int
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, plan: TensorPlan, arrays: Sequence[np.ndarray]) -> Batch:
        """The batch that these arrays of a plan are."""
        features, targets, factors = plan.split(arrays)
        weights = None if factors is None else factors.prod(1)
        return cls(features, targets, len(arrays[0]), weights)

    def feeds(self, recipe: Recipe) -> dict[str, Any]:
        """The arrays by tensor."""
        given = zip((*recipe.inputs, *recipe.labels), (*self.features, *self.targets), strict=False)
        found = {port.name: _as_fed(array, port) for port, array in given}
        if self.weights is not None and recipe.weights is not None and recipe.loss is not None:
            found[recipe.weights] = self.weights.astype(recipe.loss.dtype)
        return found

    def weigh(self, losses: np.ndarray) -> tuple[float, float]:
        """What the batch weighs, and the weighted sum of its losses.

        Args:
            losses: Of the rows; other dimensions are a mean.

        Raises:
            InputError: They are of another number of rows.
        """
        if losses.shape[:1] != (self.rows,):
            raise InputError(
                f"a loss for each of {self.rows} rows, or one number for all",
                f"shape {losses.shape}",
                "Take the mean over the rows, with tf.reduce_mean.",
            )
        each = losses.reshape(self.rows, -1).mean(1, dtype=np.float64)
        if self.weights is None:
            return float(self.rows), float(each.sum())
        return float(self.weights.sum()), float(each @ self.weights)


def _as_fed(array: np.ndarray, port: Port) -> np.ndarray:
    """An array in the type of its placeholder; those of frames have it already."""
    if port.dtype in (array.dtype.name, "string"):
        return array
    try:
        return array.astype(tf.dtypes.as_dtype(port.dtype).as_numpy_dtype, casting="same_kind")
    except TypeError as exc:
        raise InputError(
            f"{port.dtype} for {port.name!r}", f"an array of {array.dtype}",
            "Cast it in the dataset, or change the type of the placeholder.",
        ) from exc  # fmt: skip


class TensorBatches:
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
                views = [array[low:high] for array in arrays]
                yield Batch.of(self._plan, views) if high > low else None


class DatasetBatches:
    """Batches of a dataset that a function of the user's makes.

    Args:
        feed: From `zoo.orca.learn.tfdata`.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.steps = feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        for found in self._feed.epoch(epoch, start):
            if found is None:
                yield None
                continue
            for part in (found.features, found.targets):
                if isinstance(part, Mapping):
                    raise InputError(
                        "a dataset of tuples, whose order is that of inputs and labels",
                        f"dicts with {', '.join(part)}",
                        "Map it: dataset.map(lambda x, y: ((x['user'], x['item']), y)).",
                    )
            yield Batch(tuple(found.features), tuple(found.targets), found.rows, found.weights)
