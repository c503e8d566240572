"""Datasets that were made on the driver."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.learn.tfdata.given_dataset import given_dataset

X, Y = np.arange(10.0).reshape(5, 2), np.arange(5)


@pytest.mark.spark
@pytest.mark.parametrize("size", [None, 2, 5])
def test_rows_and_batches_become_shards_in_order(spark: SparkSession, size: int | None) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    shards = given_dataset(dataset if size is None else dataset.batch(size)).collect()
    np.testing.assert_array_equal(np.concatenate([shard["x"] for shard in shards]), X)
    np.testing.assert_array_equal(np.concatenate([shard["y"] for shard in shards]), Y)
    assert len(shards) > 1


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (tf.data.Dataset.from_tensor_slices((X, Y)).repeat(), "with an end.*steps_per_epoch"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).take(0), "rows to work on"),
        (tf.data.Dataset.from_tensor_slices(X), "features, targets"),
    ],
)
def test_other_datasets_are_refused(dataset: tf.data.Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_dataset(dataset)
