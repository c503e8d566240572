"""A dataset that was made on the driver: its rows become shards."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.tf.mapped_shards import mapped_shard
from zoo.orca.learn.tfdata.elements import Elements

if TYPE_CHECKING:
    from zoo.orca.data.xshards.spark_xshards import SparkXShards

__all__ = ["given_dataset"]

_log = logging.getLogger(__name__)


def given_dataset(dataset: tf.data.Dataset) -> SparkXShards:
    """The rows of a dataset as shards, gone through once on the driver.

    Args:
        dataset: Of (features, targets), single rows or batches.

    Raises:
        InputError: It has no end or no rows, or its elements have another form.
    """
    # Not at the top: ranks load the modules beside this one, and may have no Spark.
    from zoo.orca.data.xshards.spark_xshards import XShards

    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError(
            "a dataset with an end",
            "one that repeats for ever",
            "Leave out dataset.repeat(), or give a function f(config, batch_size) that returns it, "
            "and steps_per_epoch.",
        )
    if Elements(dataset).are_batches():
        dataset = dataset.unbatch()
    _log.info("a tf.data.Dataset is read on the driver, once; a function that returns it is not")
    found: dict[str, Any] = mapped_shard(dataset)
    first = found["x"] if not isinstance(found["x"], tuple | list) else found["x"][0]
    if not len(first):
        raise InputError("rows to work on", "an empty dataset", "Check what it is made of.")
    count = min(len(first), active_session().sparkContext.defaultParallelism)
    return XShards.partition(found, num_shards=count)
