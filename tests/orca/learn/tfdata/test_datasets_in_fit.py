"""Ranks as processes train on datasets of tf.data: as plain numpy does on the same rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from pyspark import cloudpickle

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.orca.learn.driver.rounds import packed
from zoo.orca.learn.linear.framework import LinearLearner, LinearModel, LinearRecipe
from zoo.orca.learn.order import LoaderSource, Order
from zoo.orca.learn.rank.loop import Loop, Observer
from zoo.orca.learn.steps import Position

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RECIPE = LinearRecipe(2, rate=0.05)
ROWS, BATCH, EPOCHS = 23, 6, 2
CUTS = (18, 23)
"""Where the parts of the ranks end, when the function cuts the rows."""


def rows_of() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    return x, x @ [1.0, -2.0] + 3.0


def whole(config: dict[str, Any], batch_size: int) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(rows_of())


def cut(config: dict[str, Any], batch_size: int) -> Any:
    low, high = (0, *CUTS)[config["rank"] : config["rank"] + 2]
    return whole(config, batch_size).skip(low).take(high - low).batch(batch_size)


class Pairs:
    """A feed of tf.data as the linear model takes it."""

    def __init__(self, creator: Callable[..., Any], member: Member) -> None:
        from zoo.orca.learn.tfdata.batches import open_dataset

        self._feed = open_dataset(LoaderSource(creator, {}, BATCH, 0), member)
        self.steps = self._feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any] | None]:
        for batch in self._feed.epoch(epoch, start):
            yield batch and (batch.features[0], batch.targets[0])


def body(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    found = {}
    for name, creator in (("whole", whole), ("cut", cut)):
        built = LinearModel(RECIPE)
        loop = Loop(
            member,
            LinearLearner(built, None),
            Pairs(creator, member),
            Position(),
            observer=Observer(),
        )
        loop.run(EPOCHS)
        found[name] = [built.weights.tolist(), loop.stats.rows, loop.stats.steps]
    return b"", found


def descent(steps: Sequence[np.ndarray]) -> np.ndarray:
    """The same in plain numpy, with the rows of the steps of an epoch."""
    weights, speed = np.zeros((2, 3))
    x, y = rows_of()
    x = np.column_stack([x, np.ones(ROWS)])
    for _ in range(EPOCHS):
        for rows in steps:
            errors = x[rows] @ weights - y[rows]
            speed = 0.9 * speed + 2 * x[rows].T @ errors / len(rows)
            weights = weights - 0.05 * speed
    return weights


@pytest.mark.slow
@pytest.mark.usefixtures("warm_launcher")
def test_ranks_with_equal_and_unequal_parts_use_each_row_once() -> None:
    order = Order("linear", pickled(RECIPE, "a recipe"), b"")
    results = launch(packed(body, order), launcher=WarmLauncher(), ranks=2, per_executor=2)
    first, second = (message.body for message in results)
    assert first["whole"] == second["whole"]
    assert first["cut"] == second["cut"]
    every = np.arange(ROWS)
    for name, steps in {
        "whole": [every[low : low + BATCH] for low in range(0, ROWS, BATCH)],
        # Batches of three: the first rank has six of them, the second two.
        "cut": [
            np.r_[every[:18][low : low + 3], every[18:][low : low + 3]] for low in range(0, 18, 3)
        ],
    }.items():
        weights, rows, count = first[name]
        np.testing.assert_allclose(weights, descent(steps), rtol=1e-12)
        assert (rows, count) == (ROWS, len(steps))
