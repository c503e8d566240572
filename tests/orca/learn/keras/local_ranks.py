"""Ranks in one process: learners whose buffers a test adds up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.orca.learn.framework import Place, framework_for
from zoo.orca.learn.keras.learner import KerasLearner
from zoo.orca.learn.keras.recipe import Recipe
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import GradientLimits, StepSums

__all__ = ["LocalRanks", "batch_of"]


def batch_of(
    x: Any, y: Any, rows: slice | None = None, weights: np.ndarray | None = None
) -> Batch | None:
    """Some rows; None where there are none."""
    rows = slice(None) if rows is None else rows
    parts = [tuple(a[rows] for a in (p if isinstance(p, tuple) else (p,))) for p in (x, y)]
    count = len(parts[0][0])
    return Batch(*parts, count, None if weights is None else weights[rows]) if count else None


class LocalRanks:
    """Models made of one, trained in step.

    Args:
        model: Compiled; stays as it is.
        size: How many ranks.
        example: Rows like those to come.
        seed: Of the randomness inside the model.
        limits: For gradients.
    """

    def __init__(
        self,
        model: keras.Model,
        size: int,
        example: Batch,
        *,
        seed: int = 0,
        limits: GradientLimits | None = None,
    ) -> None:
        framework = framework_for(f"keras-{keras.backend.backend()}")
        blob = pickled(Recipe(model=model), "a recipe")
        self.built = [framework.build(unpickled(blob)) for _ in range(size)]
        for built in self.built:
            for weight, value in zip(built.model.weights, model.weights, strict=True):
                weight.assign(value)
        self.learners = [
            KerasLearner(built, Place(k, size), example, seed=seed, until=9, limits=limits)
            for k, built in enumerate(self.built)
        ]
        self.iteration = 0
        for learner in self.learners:
            learner.begin_epoch(0)

    def step(self, batches: Sequence[Batch | None]) -> StepSums:
        """A step of all ranks."""
        sums = [StepSums() for _ in self.learners]
        for learner, batch, own in zip(self.learners, batches, sums, strict=True):
            learner.begin_step(self.iteration)
            learner.backward(batch, own)
        for arrays in zip(*([s.array] for s in sums), strict=True):
            _add(arrays)
        for arrays in zip(*(learner.buffers() for learner in self.learners), strict=True):
            _add(arrays)
        for learner, own in zip(self.learners, sums, strict=True):
            learner.update(own)
        self.iteration += 1
        return sums[0]

    def weights(self) -> list[np.ndarray]:
        """Those of all ranks, which are the same."""
        first, *others = [built.model.get_weights() for built in self.built]
        for other in others:
            for one, two in zip(first, other, strict=True):
                np.testing.assert_array_equal(one, two)
        found: list[np.ndarray] = first
        return found


def _add(arrays: Sequence[np.ndarray]) -> None:
    total = np.sum(arrays, axis=0)
    for array in arrays:
        array[...] = total


Make = Callable[[], keras.Model]
