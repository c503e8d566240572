"""The rows of a dataset of tf.data become arrays, wherever it was made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from small_graph import net, recipe_of
from zoo.errors import InputError
from zoo.orca.learn.graph.given_dataset import arrays_of
from zoo.orca.learn.graph.recipe import Recipe

v1 = tf.compat.v1
X, Y = np.arange(15.0).reshape(5, 3), np.arange(5.0)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    here = net()
    with here.graph.as_default():
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        return recipe_of(here, tf.reduce_mean(here.losses), optimizer)


def pairs() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    "form", [lambda d: d, lambda d: d.batch(2), lambda d: d.batch(2).prefetch(1)]
)
@pytest.mark.parametrize("inside", [False, True], ids=["eager", "in a graph"])
def test_rows_come_in_order(recipe: Recipe, form: Any, inside: bool) -> None:
    if inside:
        with tf.Graph().as_default():
            dataset = form(pairs())
        found = arrays_of(dataset, recipe)
    else:
        dataset = form(pairs())
        with tf.Graph().as_default():  # of no matter to a dataset that was made before
            found = arrays_of(dataset, recipe)
    np.testing.assert_array_equal(found["x"][0], X)
    np.testing.assert_array_equal(found["y"][0], Y)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pairs().repeat(), "a dataset that ends"),
        (lambda: pairs().take(0), "a dataset with rows"),
        (lambda: tf.data.Dataset.from_tensor_slices(X), "pairs"),
        (lambda: pairs().map(lambda x, y: ((x, x), y)), "1 tensors for Placeholder:0"),
        (lambda: pairs().map(lambda x, y: ({"x": x}, y)), "1 tensors for Placeholder:0"),
    ],
)
def test_what_cannot_be_used_is_said(recipe: Recipe, make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        arrays_of(make(), recipe)
