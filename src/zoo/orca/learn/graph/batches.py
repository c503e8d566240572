"""What a graph is fed with, of the batches of a rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.framework import Feed
from zoo.orca.learn.graph.recipe import Port, Recipe
from zoo.orca.learn.rank.array_batches import Batch

__all__ = ["InOrder", "feeds_of", "weighed"]


def feeds_of(batch: Batch, recipe: Recipe) -> dict[str, Any]:
    """The arrays of a batch by tensor."""
    given = zip((*recipe.inputs, *recipe.labels), (*batch.features, *batch.targets), strict=False)
    found = {port.name: _as_fed(array, port) for port, array in given}
    if batch.weights is not None and recipe.weights is not None and recipe.loss is not None:
        found[recipe.weights] = batch.weights.astype(recipe.loss.dtype)
    return found


def weighed(batch: Batch, losses: np.ndarray) -> tuple[float, float]:
    """What a batch weighs, and the weighted sum of its losses.

    Args:
        batch: With its weights.
        losses: Of the rows; other dimensions are a mean.

    Raises:
        InputError: They are of another number of rows.
    """
    if losses.shape[:1] != (batch.rows,):
        raise InputError(
            f"a loss for each of {batch.rows} rows, or one number for all",
            f"shape {losses.shape}",
            "Take the mean over the rows, with tf.reduce_mean.",
        )
    each = losses.reshape(batch.rows, -1).mean(1, dtype=np.float64)
    if batch.weights is None:
        return float(batch.rows), float(each.sum())
    return float(batch.weights.sum()), float(each @ batch.weights)


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


class InOrder:
    """Batches of a dataset whose parts have an order, which is that of inputs and labels.

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
            yield found
