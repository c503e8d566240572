"""Datasets of shards as the data of estimators, which train on dicts of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data import XShards
from zoo.orca.data.tf.data import Dataset, SliceRecipe
from zoo.orca.data.tf.mapped_shards import mapped_shard, named_arrays
from zoo.orca.learn.estimator import SparkEstimator
from zoo.orca.learn.linear.framework import LinearRecipe

X = np.arange(6.0).reshape(3, 2)
Y = np.arange(3)


def mapped(shard: Any, *functions: Any) -> dict[str, Any]:
    return mapped_shard(SliceRecipe(functions).build([shard]))


@pytest.mark.parametrize("shard", [(X, Y), {"x": X, "y": Y}, ({"only": X}, Y)])
def test_shards_get_the_names_that_estimators_know(shard: Any) -> None:
    found = named_arrays(shard)
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["y"], Y)


def test_what_else_a_dict_holds_stays() -> None:
    found = mapped({"x": X, "y": Y}, lambda row: {**row, "w": tf.cast(row["y"], tf.float32) / 2})
    assert found["w"].tolist() == [0.0, 0.5, 1.0]
    assert list(named_arrays(X)) == ["x"]


def test_each_element_is_mapped_once_and_in_order() -> None:
    found = mapped((X, Y), lambda x, y: ((x * 2, tf.strings.as_string(y)), y + 1))
    np.testing.assert_array_equal(found["x"][0], X * 2)
    assert found["x"][1].tolist() == [b"0", b"1", b"2"]
    assert found["y"].tolist() == [1, 2, 3]


def test_a_shard_without_rows_keeps_its_form() -> None:
    found = mapped((X[:0], Y[:0]), lambda x, y: ((x, y), tf.cast(y, tf.float32)))
    assert [a.shape for a in found["x"]] == [(0, 2), (0,)]
    assert found["y"].dtype == np.float32


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, y: (tf.fill([y + 1], 1.0), y), "one shape.*several shapes"),
        (lambda x, y: (tf.sparse.from_dense(x), y), "one shape.*ragged or sparse"),
        (lambda x, y: (x, y, y), "elements .features, targets.*tuples of 3.*weight"),
        (lambda x, y: ({"a": x, "b": x}, y), "in an order.*'a', 'b'.*tuple"),
    ],
)
def test_elements_of_other_forms_are_refused(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mapped((X, Y), function)


def test_errors_of_a_function_arrive_as_they_are() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="indices = 2"):
        mapped((X, Y), lambda x, y: (tf.gather(x, y), y))


@pytest.mark.spark
def test_an_estimator_uses_each_element_once(spark: SparkSession) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    shards = XShards.partition((x, x @ [2.0, -1.0] + 0.5), num_shards=3)
    made = Dataset.from_tensor_slices(shards).map(lambda a, b: (a * 2, b))
    estimator = SparkEstimator("linear", LinearRecipe(2, momentum=0.0))
    history = estimator.fit(made, epochs=8, batch_size=10, validation_data=made)
    assert [epoch["num_samples"] for epoch in history] == [40] * 8
    np.testing.assert_allclose(estimator.get_model().weights, [1.0, -0.5, 0.5], atol=1e-2)
    assert estimator.evaluate(made)["num_samples"] == 40
    assert made.to_shards().num_partitions() == 3
