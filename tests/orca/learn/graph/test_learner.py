"""Steps of a graph are those of a loop of plain TensorFlow, however rows are shared by ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from small_graph import Net, batches, net, plain, recipe_of, steps
from zoo.errors import InputError
from zoo.orca.learn.framework import Place
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.learner import GraphLearner
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import GradientLimits, StepSums

v1 = tf.compat.v1
GIVEN = batches(4)
RANKS = pytest.mark.parametrize("ranks", [1, 3])


def assert_near(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-14, err_msg=name)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "adam": lambda: v1.train.AdamOptimizer(0.05),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.01, momentum=0.5),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
    "adadelta": lambda: v1.train.AdadeltaOptimizer(0.5),
}


@RANKS
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_tensorflow_takes_the_same_steps(name: str, ranks: int) -> None:
    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, tf.reduce_mean(here.losses), OPTIMIZERS[name]())
    every = steps(recipe, GIVEN, ranks, adds_up="mean")
    expected = plain(
        there, lambda: OPTIMIZERS[name]().minimize(tf.reduce_mean(there.losses)), GIVEN
    )
    assert set(every[0]) == set(expected)  # the names of the optimizer's variables too
    for found in every:
        assert_near(found, expected)


@RANKS
@pytest.mark.parametrize("form", ["mean and penalty", "sum", "rows", "rows by one"])
def test_every_form_of_a_loss_is_exact(form: str, ranks: int) -> None:
    made = {
        "mean and penalty": lambda n: tf.reduce_mean(n.losses) + 0.1 * penalty(n),
        "sum": lambda n: tf.reduce_sum(n.losses),
        "rows": lambda n: n.losses,
        "rows by one": lambda n: n.losses[:, None],
    }[form]

    def penalty(n: Net) -> Any:
        return sum(tf.nn.l2_loss(v) for v in v1.trainable_variables())

    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, made(here), v1.train.GradientDescentOptimizer(0.02))
    adds_up = None if recipe.of_rows else ("sum" if form == "sum" else "mean")

    def minimize() -> Any:
        loss = made(there) if adds_up else tf.reduce_mean(made(there))
        return v1.train.GradientDescentOptimizer(0.02).minimize(loss)

    for found in steps(recipe, GIVEN, ranks, adds_up=adds_up):
        assert_near(found, plain(there, minimize, GIVEN))


@RANKS
def test_rows_have_weights(ranks: int) -> None:
    draw = np.random.default_rng(4)
    weights = [draw.uniform(0, 3, len(x)) for x, _ in GIVEN]
    weights[1][:] = 0.0  # a step in which nothing weighs anything changes nothing
    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, here.losses, v1.train.GradientDescentOptimizer(0.1))
    found = steps(recipe, GIVEN, ranks, weights=weights)
    with there.graph.as_default(), v1.Session() as sess:
        w = v1.placeholder(tf.float64, [None])
        loss = tf.math.divide_no_nan(tf.reduce_sum(w * there.losses), tf.reduce_sum(w))
        train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        sess.run(v1.global_variables_initializer())
        for (x, y), weight in zip(GIVEN, weights, strict=True):
            sess.run(train, {there.x: x, there.y: y, w: weight})
        expected = {v.op.name: sess.run(v) for v in v1.global_variables()}
    for each in found:
        assert_near(each, expected)


@RANKS
def test_gradients_are_clipped_as_tensorflow_does(ranks: int) -> None:
    def clipped(n: Net) -> Any:
        optimizer = v1.train.GradientDescentOptimizer(0.5)
        grads, variables = zip(*optimizer.compute_gradients(tf.reduce_mean(n.losses)), strict=True)
        short, _ = tf.clip_by_global_norm(grads, 0.8)
        cut = [tf.clip_by_value(g, -0.1, 0.2) for g in short]
        return optimizer.apply_gradients(zip(cut, variables, strict=True))

    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(
            here, tf.reduce_mean(here.losses), v1.train.GradientDescentOptimizer(0.5)
        )
    limits = GradientLimits(-0.1, 0.2, 0.8)
    expected = plain(there, lambda: clipped(there), GIVEN)
    for found in steps(recipe, GIVEN, ranks, limits=limits, adds_up="mean"):
        assert_near(found, expected)


@RANKS
@pytest.mark.parametrize("resource", [True, False], ids=["resource", "reference"])
def test_what_updates_write_is_the_mean_over_all_rows(ranks: int, resource: bool) -> None:
    def moving(n: Net) -> Any:
        with n.graph.as_default():
            mean = v1.get_variable(
                "moving", initializer=np.zeros(3), trainable=False, use_resource=resource
            )
            count = v1.get_variable("count", initializer=0, trainable=False, use_resource=resource)
            seen = v1.assign(mean, 0.9 * mean + 0.1 * tf.reduce_mean(n.x, 0))
            return [seen, v1.assign_add(count, 1)]

    here, there = net(resource=resource), net(resource=resource)
    updates = moving(here)
    with here.graph.as_default():
        optimizer = v1.train.MomentumOptimizer(0.1, 0.9)
        recipe = recipe_of(here, tf.reduce_mean(here.losses), optimizer, updates=updates)
    assert recipe.step is not None
    assert recipe.step.state == ("moving", "count")
    again = moving(there)

    def train() -> Any:
        optimizer = v1.train.MomentumOptimizer(0.1, 0.9)
        return [optimizer.minimize(tf.reduce_mean(there.losses)), again]

    expected = plain(there, train, GIVEN)
    assert expected["count"] == 4
    for found in steps(recipe, GIVEN, ranks, adds_up="mean"):
        assert_near(found, expected)


@RANKS
def test_rates_fall_by_global_steps(ranks: int) -> None:
    def falling(n: Net) -> tuple[Any, Any]:
        step = v1.train.get_or_create_global_step(n.graph)
        rate = v1.train.exponential_decay(0.2, step, 2, 0.5, staircase=True)
        return v1.train.GradientDescentOptimizer(rate), step

    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, tf.reduce_mean(here.losses), falling(here)[0])

    def train() -> Any:
        optimizer, step = falling(there)
        return optimizer.minimize(tf.reduce_mean(there.losses), global_step=step)

    expected = plain(there, train, GIVEN)
    for found in steps(recipe, GIVEN, ranks, adds_up="mean"):
        assert found["global_step"] == 4
        assert_near(found, expected)
    built = Built(recipe)
    built.program.load({**recipe.values, "global_step": np.array(4)})
    assert built.learning_rate == pytest.approx(0.05)


@RANKS
@pytest.mark.parametrize("name", ["momentum", "adam", "rmsprop"])
def test_tables_are_updated_where_rows_were_looked_up(name: str, ranks: int) -> None:
    def table(n: Net) -> Any:
        with n.graph.as_default():
            values = np.linspace(0, 1, 10)
            found = v1.get_variable("table", initializer=values, use_resource=True)
            rows = tf.cast(tf.abs(n.x[:, 0]) * 2, tf.int64)
            return tf.reduce_mean(n.losses + tf.gather(found, tf.minimum(rows, 9)) ** 2)

    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, table(here), OPTIMIZERS[name]())
    assert recipe.step is not None
    assert sum(g.seen is not None for g in recipe.step.gradients) == 1
    expected = plain(there, lambda: OPTIMIZERS[name]().minimize(table(there)), GIVEN)
    for found in steps(recipe, GIVEN, ranks, adds_up="mean"):
        assert_near(found, expected)


def test_step_that_is_not_taken_leaves_nothing() -> None:
    here = net()
    with here.graph.as_default():
        mean = v1.get_variable("moving", initializer=np.zeros(3), trainable=False)
        update = v1.assign_add(mean, tf.reduce_mean(here.x, 0))
        optimizer = v1.train.AdamOptimizer(0.1)
        recipe = recipe_of(here, tf.reduce_mean(here.losses), optimizer, updates=[update])
    built = Built(recipe)
    built.program.load(recipe.values)
    learner, sums = GraphLearner(built, Place()), StepSums()
    x, y = GIVEN[0]
    learner.backward(Batch((x,), (y,), len(x)), sums)
    assert built.program.values(["moving"])["moving"].any()
    learner.restore()
    assert_near(built.program.values(), recipe.values)


def test_dropout_of_a_step_hangs_on_its_number_and_rank() -> None:
    here = net(lambda hidden: tf.nn.dropout(hidden, rate=0.5))
    with here.graph.as_default():
        recipe = recipe_of(
            here, tf.reduce_mean(here.losses), v1.train.GradientDescentOptimizer(0.1)
        )
    one, again, later = (
        steps(recipe, GIVEN, adds_up="mean", first=first)[0]["w"] for first in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - later).max() > 1e-3


def test_loss_that_does_not_add_up_trains_on_one_rank_only() -> None:
    here = net()
    with here.graph.as_default():
        recipe = recipe_of(
            here, tf.reduce_sum(here.losses) + 1, v1.train.GradientDescentOptimizer(0.1)
        )
    built = Built(recipe)
    built.adds_up = "mixed"
    GraphLearner(built, Place(0, 1))
    with pytest.raises(InputError, match="neither"):
        GraphLearner(built, Place(0, 2))


def test_placeholder_without_a_value_is_named() -> None:
    here = net()
    with here.graph.as_default():
        rate = v1.placeholder(tf.float64, [], name="rate_of_dropout")
        loss = tf.reduce_mean(here.losses) * rate
        recipe = recipe_of(here, loss, v1.train.GradientDescentOptimizer(0.1))
    with pytest.raises(InputError, match="rate_of_dropout:0.*feed_dict"):
        GraphLearner(Built(recipe), Place())


class Remembering(v1.train.GradientDescentOptimizer):
    """Takes a step along the gradient of the step before."""

    def _create_slots(self, var_list: Any) -> None:
        for variable in var_list:
            self._zeros_slot(variable, "before", self._name)

    def _resource_apply_dense(self, grad: Any, handle: Any) -> Any:
        before = self.get_slot(handle, "before")
        with tf.control_dependencies([grad]):  # weights are read before they move
            moved = handle.assign_sub(0.05 * before.read_value(), read_value=False)
        with tf.control_dependencies([moved]):
            return before.assign(grad, read_value=False)


@RANKS
def test_optimizer_may_remember_a_gradient(ranks: int) -> None:
    here, there = net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, tf.reduce_mean(here.losses), Remembering(0.1))
    expected = plain(there, lambda: Remembering(0.1).minimize(tf.reduce_mean(there.losses)), GIVEN)
    for found in steps(recipe, GIVEN, ranks, adds_up="mean"):
        assert_near(found, expected)
