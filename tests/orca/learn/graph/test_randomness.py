"""Random operations of a graph depend on the seed that is fed, and keep their distributions."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf

from small_graph import net, recipe_of
from zoo.orca.learn.graph.program import Program
from zoo.orca.learn.graph.recipe import Recipe

v1 = tf.compat.v1
KINDS = ["uniform", "normal", "truncated", "whole", "classes"]


def drawing() -> tuple[Recipe, dict[str, str]]:
    """A graph that draws, and the tensors that it draws by kind."""
    here = net()
    with here.graph.as_default():
        drawn = {
            "uniform": tf.random.uniform([4000]),
            "other uniform": tf.random.uniform([4000]),
            "normal": tf.random.normal([4000], stddev=2.0),
            "truncated": tf.random.truncated_normal([4000]),
            "whole": tf.random.uniform([4000], 2, 5, tf.int32),
            "classes": v1.random.categorical(np.log([[0.2, 0.8]]), 4000)[0],
        }
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        recipe = recipe_of(here, tf.reduce_mean(here.losses), optimizer)
    return recipe, {kind: tensor.name for kind, tensor in drawn.items()}


@pytest.fixture(scope="module")
def draws() -> dict[str, list[np.ndarray]]:
    """What is drawn with the seeds 1, 1 in another session, and 2."""
    recipe, names = drawing()
    assert recipe.seed is not None
    found = [
        Program(recipe).run([*names.values()], {recipe.seed: np.array([seed, 0])})
        for seed in (1, 1, 2)
    ]
    return dict(zip(names, map(list, zip(*found, strict=True)), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(draws: dict[str, list[np.ndarray]], kind: str) -> None:
    first, again, other = draws[kind]
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_each_operation_draws_for_itself(draws: dict[str, list[np.ndarray]]) -> None:
    together = np.corrcoef(draws["uniform"][0], draws["other uniform"][0])[0, 1]
    assert abs(together) < 0.08


def test_distributions_stay(draws: dict[str, list[np.ndarray]]) -> None:
    uniform, normal, cut, whole, classes = (draws[kind][0] for kind in KINDS)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert normal.std() == pytest.approx(2.0, rel=0.05)
    assert np.abs(cut).max() <= 2
    assert set(whole) == {2, 3, 4}
    assert classes.mean() == pytest.approx(0.8, abs=0.03)


def test_what_cannot_be_seeded_is_said(caplog: pytest.LogCaptureFixture) -> None:
    here = net(lambda hidden: tf.random.shuffle(hidden))
    with here.graph.as_default(), caplog.at_level(logging.WARNING):
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        recipe_of(here, tf.reduce_mean(here.losses), optimizer)
    assert "RandomShuffle" in caplog.text
