"""How a loss adds up, and which columns a graph takes, is found out before any job."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import types as T

from small_graph import net, recipe_of
from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.framework import Graph
from zoo.orca.learn.graph.rehearsal import try_loss

v1 = tf.compat.v1


def halved(hidden: Any) -> Any:
    return tf.nn.dropout(hidden, rate=0.5)


def penalty() -> Any:
    return 0.3 * tf.add_n([tf.nn.l2_loss(v) for v in v1.trainable_variables()])


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (lambda n: tf.reduce_mean(n.losses), "mean"),
        (lambda n: v1.losses.mean_squared_error(n.y, n.output), "mean"),
        (lambda n: tf.reduce_mean(n.losses) + penalty(), "mean"),
        (lambda n: tf.reduce_sum(n.losses), "sum"),
        (lambda n: tf.nn.l2_loss(n.output - n.y), "sum"),
        (lambda n: tf.reduce_sum(n.losses) + penalty(), "mixed"),
        (lambda n: tf.reduce_sum(n.losses) ** 2, "mixed"),
        (lambda n: tf.reduce_mean(n.losses) * 0.0, "mean"),
        (lambda n: n.losses, "rows"),
    ],
)
@pytest.mark.parametrize("middle", [lambda hidden: hidden, halved], ids=["plain", "dropout"])
def test_made_up_rows_tell_how_a_loss_adds_up(form: Any, kind: str, middle: Any) -> None:
    here = net(middle)
    with here.graph.as_default():
        recipe = recipe_of(here, form(here), v1.train.GradientDescentOptimizer(0.1))
    built = Built(recipe)
    built.program.load(recipe.values)
    try_loss(built, {here.x.name: ("float64", (3,)), here.y.name: ("float64", ())})
    assert built.adds_up == kind


def test_trying_changes_no_variable() -> None:
    here = net()
    with here.graph.as_default():
        mean = v1.get_variable("moving", initializer=np.zeros(3), trainable=False)
        with tf.control_dependencies([v1.assign_add(mean, tf.reduce_mean(here.x, 0))]):
            loss = tf.reduce_mean(here.losses)
        recipe = recipe_of(here, loss, v1.train.GradientDescentOptimizer(0.1))
    built = Built(recipe)
    built.program.load(recipe.values)
    try_loss(built, {here.x.name: ("float64", (3,)), here.y.name: ("float64", ())})
    np.testing.assert_array_equal(built.program.values()["moving"], np.zeros(3))


COLUMNS = {"a": T.IntegerType(), "b": T.FloatType(), "c": T.DoubleType(), "y": T.LongType()}
SCHEMA = T.StructType([T.StructField(name, kind) for name, kind in COLUMNS.items()])


def plan_of(shape: list[int | None], features: list[Any], labels: list[Any] | None = None) -> Any:
    """The plan that a graph makes of columns."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, shape, name="x")
        y = v1.placeholder(tf.int32, [None], name="y")
        w = v1.get_variable("w", [2], use_resource=True)
        logits = tf.reshape(x, [tf.shape(x)[0], -1])[:, :1] * w
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        here = net()
        here.graph, here.x, here.y, here.output = graph, x, y, logits
        loss = tf.reduce_mean(each)
        recipe = recipe_of(here, loss, v1.train.GradientDescentOptimizer(0.1))
    built, framework = Built(recipe), Graph()
    built.program.load(recipe.values)
    plan = plan_columns(
        SCHEMA, features, labels or ["y"], float_dtype=framework.float_dtype(built),
        assemble=framework.takes_one_input(built),
    )  # fmt: skip
    return framework.as_taken(built, plan, frozenset())


def test_columns_become_what_placeholders_take() -> None:
    plan = plan_of([None, 3], ["a", "b", "c"])
    (x,), (y,) = plan.features, plan.labels
    assert (x.dtype, x.shape) == ("float32", (3,))
    assert (y.dtype, y.shape) == ("int32", ())
    assert all(column.exact for column in y.columns)


def test_one_column_is_a_matrix_where_one_is_wanted() -> None:
    assert plan_of([None, 1], ["b"]).features[0].shape == (1,)
    assert plan_of([None], ["b"]).features[0].shape == ()


@pytest.mark.parametrize(
    ("shape", "features", "labels", "said"),
    [
        ([None, 2], ["a", "b", "c"], None, "rows of shape .2,. for 'x:0'"),
        ([None, 3], ["a", "b", "c"], ["y", "a"], "1 tensors for the labels"),
        ([None, 3], ["a", "b", "c"], [["y", "a"]], "rows of shape .. for 'y:0'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    shape: list[int | None], features: list[Any], labels: list[Any] | None, said: str
) -> None:
    with pytest.raises(ColumnError, match=said):
        plan_of(shape, features, labels)


def test_loss_that_broadcasts_rows_is_refused() -> None:
    here = net()
    with here.graph.as_default():
        wide = (here.output[:, None] - here.y) ** 2
        recipe = recipe_of(here, tf.reduce_mean(wide, 0)[:2], v1.train.AdamOptimizer())
    built = Built(recipe)
    built.program.load(recipe.values)
    with pytest.raises(ColumnError, match="one for each of 4 rows"):
        try_loss(built, {here.x.name: ("float64", (3,)), here.y.name: ("float64", ())})


def test_metric_that_is_a_sum_is_refused() -> None:
    here = net()
    with here.graph.as_default():
        errors = tf.abs(here.output - here.y)
        metrics = {"rows": errors, "mean": tf.reduce_mean(errors), "total": tf.reduce_sum(errors)}
        loss, optimizer = tf.reduce_mean(here.losses), v1.train.AdamOptimizer()
        recipe = recipe_of(here, loss, optimizer, metrics=metrics)
    built = Built(recipe)
    built.program.load(recipe.values)
    with pytest.raises(InputError, match="metric 'total' as a mean"):
        try_loss(built, {here.x.name: ("float64", (3,)), here.y.name: ("float64", ())})
