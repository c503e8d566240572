"""Say that Spark has ended, where py4j says how it noticed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.errors import ClusterError, ZooError

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = ["end_of", "while_spark_runs", "why_ended"]


def why_ended(context: SparkContext) -> str | None:
    """Why a Spark does not run any more; None while it does."""
    from py4j.protocol import Py4JError

    # Another thread may stop it between two of these lines.
    inside = context._jsc
    if inside is None:
        return "a SparkContext that was stopped"
    try:
        stopped = inside.sc().isStopped()
    except (Py4JError, OSError):
        return "the end of its JVM"
    return "a SparkContext that was stopped" if stopped else None


def end_of(context: SparkContext) -> ClusterError | None:
    """The error that says that a Spark has ended; None while it runs."""
    reason = why_ended(context)
    if reason is None:
        return None
    return ClusterError(
        "Spark to run until its work is done",
        reason,
        "Another thread may have called stop_orca_context() or spark.stop(), or the machine ran "
        "out of memory. Call init_orca_context() and begin again.",
    )


@contextlib.contextmanager
def while_spark_runs(context: SparkContext) -> Iterator[None]:
    """What fails in this block because Spark has ended raises an error that says so.

    When another thread stops Spark, or its JVM is killed, whoever is at work with it gets one of
    a dozen errors of py4j, Java or the network. So this asks Spark, and does not read the error.

    Args:
        context: The Spark that the block works with.

    Raises:
        ClusterError: The block failed, and Spark does not run any more.

    Example::

        with while_spark_runs(rdd.context):
            rows = rdd.collect()
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as exc:
        ended = end_of(context)
        if ended is None:
            raise
        raise ended from exc
