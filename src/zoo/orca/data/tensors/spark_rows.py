"""Rows that Spark has: what all kinds of them share."""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from py4j.protocol import Py4JError
from pyspark import RDD, SparkContext, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import Row

from zoo.cluster.session.ended import while_spark_runs
from zoo.errors import ClusterError, InputError
from zoo.orca.data.tensors.rows import Broadcast, Rows, TaskPlace

__all__ = ["SparkJob", "SparkRows", "scratch_explained", "stages_explained", "task_place"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
_WORD = "zoo.rows.word"
# What Spark and Java say when a scratch folder is full or gone.
_NO_ROOM = (
    "No space left on device", "Disk quota exceeded", "Failed to create local dir",
    "Failed to create directory", "Read-only file system",
)  # fmt: skip


def task_place() -> TaskPlace:
    """In a task of Spark: which one it is."""
    task = TaskContext.get()
    assert task is not None
    word = task.getLocalProperty(_WORD) or ""
    return TaskPlace(task.partitionId(), task.taskAttemptId(), word)


@dataclass(frozen=True)
class SparkJob:
    """A planned job of Spark.

    An RDD is a plan that does not change: adaptive execution has joined partitions, and files are
    cut into them, once and for all, however many executors there are when it runs again.

    Attributes:
        rdd: What the tasks give back.
    """

    rdd: RDD[Any]

    def run(
        self, word: str = "", only: Collection[int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """See `Job`."""
        context = self.rdd.context
        before = context.getLocalProperty(_WORD)
        context.setLocalProperty(_WORD, word)
        try:
            with stages_explained(), while_spark_runs(context), scratch_explained():
                if only is None:
                    rows = self.rdd.collect()
                else:
                    rows = context.runJob(self.rdd, list, sorted(only))
            return [row.asDict() if isinstance(row, Row) else row for row in rows]
        finally:
            # What ends Spark meanwhile is the error to see, not that this cannot be reset.
            with contextlib.suppress(Py4JError, OSError, AttributeError):
                context.setLocalProperty(_WORD, cast("str", before))


class SparkRows(Rows):
    """Rows in the partitions of some Spark data."""

    @property
    @abstractmethod
    def context(self) -> SparkContext:
        """The Spark that holds them."""

    @property
    def application(self) -> str:
        """The Spark application."""
        return self.context.applicationId

    def broadcast(self, value: bytes) -> Broadcast:
        """See `Rows`."""
        with while_spark_runs(self.context), scratch_explained():
            return self.context.broadcast(value)

    def everywhere(self, function: Callable[[], T]) -> list[T]:
        """See `Rows`; as many tasks as there are slots visit every executor, if all are free."""
        context = self.context
        try:
            slots = context.defaultParallelism
            tasks = context.parallelize(range(slots), slots)
            return tasks.mapPartitions(lambda _: [function()]).collect()
        except Exception as exc:  # noqa: BLE001 - Spark may be stopping, and says so in many ways
            _log.debug("Spark has not visited every executor: %s", exc)
            return []


@contextlib.contextmanager
def scratch_explained() -> Iterator[None]:
    """Tell what Spark says of a scratch folder that is full or gone as an error of ours."""
    try:
        yield
    except (Py4JError, PySparkException, pickle.PicklingError, OSError) as exc:
        said = str(exc)
        if (found := next((words for words in _NO_ROOM if words in said), None)) is None:
            raise
        raise ClusterError(
            "room in Spark's scratch folders, on the driver and on every executor",
            f"'{found}' from Spark",
            "Free space there, or name other folders with spark.local.dir (SPARK_LOCAL_DIRS of "
            "standalone workers, LOCAL_DIRS on YARN) and start Spark again.",
        ) from exc


@contextlib.contextmanager
def stages_explained() -> Iterator[None]:
    """Tell what a stage of pyspark.ml says of a row that it cannot take as an error of ours."""
    try:
        yield
    except (Py4JError, PySparkException) as exc:
        said = next((line for line in str(exc).splitlines() if "handleInvalid" in line), None)
        if said is None:
            raise
        raise InputError(
            "rows that each stage of pyspark.ml can take", re.split(r"Exception: ", said)[-1],
            "Fill or leave out such rows before, or make the stage with handleInvalid='keep'.",
        ) from exc  # fmt: skip
