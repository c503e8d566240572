"""Spark jobs over shards: user functions in tasks, their errors on the driver, and shuffles.

An error of a user's function reaches the driver as its own type in jobs that are started here
(`zoo.orca.data.xshards.error_inbox`); whoever runs a job of their own over the shards gets what
Spark makes of it, with a note that names the shard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from py4j.protocol import Py4JError
from pyspark import RDD, SparkContext
from pyspark.errors import PySparkException

from zoo.cluster.session.ended import while_spark_runs
from zoo.errors import ClusterError, InputError
from zoo.orca.data.xshards.content import concatenate, even_cuts, take_rows
from zoo.orca.data.xshards.error_inbox import (
    INVITATION,
    CarriedError,
    ErrorInbox,
    Reporting,
    was_reported,
)
from zoo.orca.data.xshards.keys import partition_of_values

__all__ = [
    "attempt",
    "gather",
    "map_shards",
    "run_job",
    "said_by",
    "scatter_by_column",
    "spread_evenly",
]

T = TypeVar("T")
_UNEVEN = "same number of elements in each partition"


def map_shards(rdd: RDD[Any], function: Callable[..., Any], *args: Any) -> RDD[Any]:
    """Call `function(shard, *args)` for each shard; its errors tell which shard it was."""

    def run(partition: int, shards: Iterable[Any]) -> Iterator[Any]:
        for number, shard in enumerate(shards):
            yield _called(function, shard, args, f"shard {number} of partition {partition}")

    return rdd.mapPartitionsWithIndex(run, preservesPartitioning=True)


def _called(function: Callable[..., T], shard: Any, args: Sequence[Any], name: str) -> T:
    with Reporting(name):
        return function(shard, *args)


def run_job(context: SparkContext, action: Callable[..., T], *args: Any) -> T:
    """Do something that runs a job; errors of functions in its tasks arrive as their own type.

    Args:
        context: The Spark that runs the job.
        action: Such as the `collect` of an RDD.
        *args: Its arguments.

    Raises:
        ClusterError: The Spark of the shards has stopped.
        Exception: Whatever a function raised in a task.
    """
    if context._jsc is None:
        raise ClusterError(
            "the Spark that holds the shards to run",
            "one that has been stopped",
            "Make the shards again after init_orca_context().",
        )
    with ErrorInbox.at(context) as inbox:
        before = context.getLocalProperty(INVITATION)
        context.setLocalProperty(INVITATION, inbox.invitation)
        try:
            with while_spark_runs(context):
                result = action(*args)
            inbox.tell_of_retries()
            return result
        except (Py4JError, PySparkException) as exc:
            text = str(exc)
            found = inbox.find(text)
            if found is None:
                _raise_uneven(text)
                raise
        finally:
            # What ends Spark meanwhile is the error to see, not that this cannot be reset.
            with contextlib.suppress(Py4JError, OSError, AttributeError):
                context.setLocalProperty(INVITATION, before)  # type: ignore[arg-type]
    # Out here Spark's error is no longer the context of this one.
    found.throw()


def _raise_uneven(text: str) -> None:
    if "zip" in text and _UNEVEN in text:
        raise InputError(
            f"two SparkXShards with the {_UNEVEN}",
            "different numbers of shards",
            "Make both from the same data, or repartition both before zip.",
        ) from None


def attempt(rdd: RDD[Any], work: Callable[[Iterable[Any]], Iterable[Any]]) -> RDD[Any]:
    """Do work of ours on each partition; `said_by` reads what comes of it.

    An `InputError` ends the job with its first attempt: it is about the data, and Spark, which
    tries again what raises, would only meet it again.

    Args:
        rdd: The shards.
        work: From the shards of a partition to a few small things.
    """

    def tried(partition: int, shards: Iterable[Any]) -> list[list[Any] | CarriedError]:
        name = f"partition {partition}"

        def counted() -> Iterator[Any]:
            nonlocal name
            for number, shard in enumerate(shards):
                name = f"shard {number} of partition {partition}"
                yield shard

        try:
            return [list(work(counted()))]
        except Exception as exc:
            if isinstance(exc, InputError) and not was_reported(exc):
                return [CarriedError.of(exc, name)]
            with Reporting(name):
                raise

    return rdd.mapPartitionsWithIndex(tried)


def said_by(tasks: Iterable[list[Any] | CarriedError]) -> list[list[Any]]:
    """What the tasks of `attempt` made of their partitions.

    Raises:
        InputError: What one of them met.
    """
    done: list[list[Any]] = []
    for one in tasks:
        if isinstance(one, CarriedError):
            one.throw()
        done.append(one)
    return done


def gather(rdd: RDD[Any], function: Callable[[Any], T]) -> list[list[T]]:
    """What a function says of each shard, partition by partition."""
    return said_by(run_job(rdd.ctx, attempt(rdd, lambda shards: map(function, shards)).collect))


def spread_evenly(rdd: RDD[Any], sizes: Sequence[int], count: int, empty: Any = None) -> RDD[Any]:
    """Move rows, or whole shards, so that each partition has as many as the others.

    The order of rows stays. Each partition gets one shard at most when rows are moved.

    Args:
        rdd: The shards.
        sizes: What each partition has now: rows, or shards when `empty` is None.
        count: How many partitions there are to be.
        empty: A shard without rows of the kind that all shards have; None to move whole shards.
    """
    cuts = even_cuts(sizes, count)
    by_rows = empty is not None

    def scatter(partition: int, shards: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        pieces = cuts[partition]
        if not pieces:
            return
        held = list(shards)
        whole = _called(concatenate, held, (), f"partition {partition}") if by_rows else held
        for target, start, stop in pieces:
            yield target, ((partition, 0), take_rows(whole, start, stop))

    keep = empty if by_rows and not sum(sizes) else None
    return _shuffled(rdd.mapPartitionsWithIndex(scatter), count, keep, joined=by_rows)


def scatter_by_column(rdd: RDD[Any], column: Any, count: int, empty: Any = None) -> RDD[Any]:
    """Move rows of DataFrames so that equal values of a column meet in one partition.

    Args:
        rdd: The DataFrames.
        column: The label of the column.
        count: How many partitions there are to be.
        empty: What the first partition holds when there are no rows at all.
    """

    def cut(frame: Any) -> list[tuple[int, Any]]:
        targets = partition_of_values(frame[column], count)
        order = np.argsort(targets, kind="stable")
        ends = np.flatnonzero(np.diff(targets[order])) + 1
        groups = np.split(order, ends) if len(order) else []
        return [(int(targets[rows[0]]), frame.iloc[rows]) for rows in groups]

    def scatter(partition: int, cuts: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for number, pieces in enumerate(cuts):
            for target, rows in pieces:
                yield target, ((partition, number), rows)

    pieces = map_shards(rdd, cut).mapPartitionsWithIndex(scatter)
    return _shuffled(pieces, count, empty, joined=True)


def _shuffled(pieces: RDD[Any], count: int, empty: Any, *, joined: bool) -> RDD[Any]:
    def join(partition: int, arrived: Iterable[tuple[int, Any]]) -> Iterator[Any]:
        # Spark gives them in the order in which they arrive.
        held = sorted((piece for _, piece in arrived), key=lambda piece: piece[0])
        shards = [shard for _, shard in held]
        if joined:
            if shards:
                yield _called(concatenate, shards, (), f"new partition {partition}")
            elif empty is not None and partition == 0:
                yield empty
        else:
            for several in shards:
                yield from several

    return pieces.partitionBy(count, int).mapPartitionsWithIndex(join)
