"""A state holds all of a graph, is read without running anything, and is of this graph only."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from small_graph import Net, batches, net, recipe_of, steps
from zoo.errors import InputError
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.graph.state import apply_state, read_state, write_state
from zoo.orca.learn.optimizers import SGD
from zoo.orca.learn.optimizers.schedule import Plateau
from zoo.orca.learn.steps import Position

v1 = tf.compat.v1


def adam(here: Net, optimizer: Any = None) -> Recipe:
    with here.graph.as_default():
        given = optimizer or v1.train.AdamOptimizer(0.1)
        return recipe_of(here, tf.reduce_mean(here.losses), given)


def saved(built: Built, position: Position = Position()) -> bytes:  # noqa: B008 - not changed
    file = io.BytesIO(b"something longer that was there before" * 1000)
    write_state(file, built, position, {"fit": {"rows": 3}})
    return file.getvalue()


def built_of(recipe: Recipe) -> Built:
    built = Built(recipe)
    built.program.load(recipe.values)
    return built


def test_state_comes_back() -> None:
    recipe = adam(net())
    values = steps(recipe, batches(3), adds_up="mean")[0]
    first, second = built_of(recipe), built_of(recipe)
    first.program.load(values)
    state = read_state(saved(first, Position(1, 2, 5)))
    assert apply_state(second, state) == Position(1, 2, 5)
    assert state.extras == {"fit": {"rows": 3}}
    for name, value in second.program.values().items():
        np.testing.assert_array_equal(value, values[name])


def test_numbers_that_numpy_does_not_know_come_back() -> None:
    here = net()
    with here.graph.as_default():
        v1.get_variable("half", initializer=tf.constant([1.5, -2.0], tf.bfloat16))
    recipe = adam(here)
    built = built_of(recipe)
    blob = saved(built)
    built.program.load({**recipe.values, "half": np.zeros(2)})
    apply_state(built, read_state(blob))
    np.testing.assert_array_equal(built.program.values()["half"].astype(float), [1.5, -2.0])


def test_what_a_schedule_has_seen_comes_back() -> None:
    plateau = Plateau("Loss", factor=0.5, patience=0)
    first, second = (built_of(adam(net(), SGD(1.0, learningrate_schedule=plateau))) for _ in "ab")
    assert first.schedule is not None
    for loss in (1.0, 2.0, 3.0):
        first.schedule.observe(4, {"Loss": loss})
    assert first.learning_rate < 1.0
    apply_state(second, read_state(saved(first)))
    assert second.learning_rate == first.learning_rate


def test_second_estimator_of_a_graph_reads_what_the_first_wrote() -> None:
    here = net()
    first, second = built_of(adam(here)), built_of(adam(here))
    first.program.load({**first.recipe.values, "w/Adam_1": np.ones((3, 4))})
    apply_state(second, read_state(saved(first)))
    np.testing.assert_array_equal(second.program.values()["w/Adam_1"], np.ones((3, 4)))
    assert second.program.values().keys() == first.program.values().keys()


def test_state_of_another_graph_changes_nothing() -> None:
    other = net()
    with other.graph.as_default():
        v1.get_variable("more", initializer=np.zeros(2))
    built, blob = built_of(adam(net())), saved(built_of(adam(other)))
    before = built.program.values()
    with pytest.raises(InputError, match="one with 'more'"):
        apply_state(built, read_state(blob))
    with pytest.raises(InputError, match="one without 'more'"):
        apply_state(built_of(adam(other)), read_state(saved(built)))
    momentum = built_of(adam(net(), v1.train.MomentumOptimizer(0.1, 0.9)))
    with pytest.raises(InputError, match="'w/Momentum'"):
        apply_state(built, read_state(saved(momentum)))
    for name, value in built.program.values().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("blob", [b"", b"nothing", b"PK\x03\x04 and so on"])
def test_what_is_no_state_is_refused(blob: bytes) -> None:
    with pytest.raises(InputError, match="written by save"):
        read_state(blob)
