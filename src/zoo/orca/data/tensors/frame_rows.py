"""The rows of a Spark DataFrame."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from zoo.orca.data.frame import select_columns
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.plan_columns import quoted
from zoo.orca.data.tensors.rows import ArrowPieces, Job, Rows, Task
from zoo.orca.data.tensors.spark_rows import SparkJob, SparkRows, scratch_explained, task_place

__all__ = ["FrameRows"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameRows(SparkRows):
    """The rows of a DataFrame.

    Attributes:
        frame: However it is partitioned.
    """

    frame: DataFrame

    @property
    def context(self) -> SparkContext:
        """The Spark of the frame's session."""
        return self.frame.sparkSession.sparkContext

    def job(self, plan: TensorPlan, task: Task, schema: str) -> Job:
        """See `Rows`."""

        def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return task(ArrowPieces(plan, batches), task_place())

        columns = select_columns(self.frame, plan.columns)
        with scratch_explained():  # shuffles that adaptive execution plans by are done here
            return SparkJob(columns.mapInArrow(work, schema).rdd)

    def first(self, count: int) -> Rows:
        """See `Rows`."""
        return FrameRows(self.frame.limit(count))

    def spread(self, partitions: int, columns: Sequence[str]) -> Rows:
        """See `Rows`.

        Spark deals rows out by their content, and then gives them in the order in which they
        arrive from other executors; the sort makes one order of it.
        """
        names = [F.col(quoted(name)) for name in columns]
        dealt = self.frame.select(*names).repartition(partitions)
        return FrameRows(dealt.sortWithinPartitions(F.xxhash64(*names), *names))

    def held_as(self) -> object | None:
        """See `Rows`.

        A frame may be persisted anew with other rows: after `unpersist`, or by Spark itself when
        it writes to the files that the frame was read from.
        """
        try:
            session = self.frame.sparkSession._jsparkSession
            cached = session.sharedState().cacheManager().lookupCachedData(self.frame._jdf)
            if not cached.isDefined():
                return None
            blocks = cached.get().cachedRepresentation().cacheBuilder()
            jvm: Any = self.frame.sparkSession._jvm
            return int(jvm.java.lang.System.identityHashCode(blocks))
        except Py4JError as exc:
            _log.debug("cannot tell whether the frame is persisted: %s", exc)
            return None

    def same(self, other: Rows) -> bool:
        """See `Rows`."""
        # Frames that differ in nothing but the names of columns have the same semantics.
        return (
            isinstance(other, FrameRows)
            and self.frame.columns == other.frame.columns
            and self.frame.sameSemantics(other.frame)
        )
