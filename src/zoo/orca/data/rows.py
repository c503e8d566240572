"""Rows where Spark has them: what ingest and evaluation run their tasks on.

Each kind of data says how its partitions become pieces: one array for each tensor, some megabytes
of rows at a time. What a task does with the pieces does not depend on the kind.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import DataFrame

from zoo.orca.data.decode import Flaw, PlanDecoder
from zoo.orca.data.frame import select_columns
from zoo.orca.data.plan import TensorPlan, TensorSpec

__all__ = ["ArrowPieces", "FrameRows", "Pieces", "Rows", "Task"]

_log = logging.getLogger(__name__)


class Pieces(Protocol):
    """The rows of one partition."""

    @property
    def tensors(self) -> list[TensorSpec]:
        """The tensors, shapes and dtypes known after the first piece."""

    @property
    def flaws(self) -> dict[tuple[str, str], Flaw]:
        """What was found so far that cannot be used, by column and kind."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Pieces in order: an array for each tensor; none any more after a flaw."""


Task = Callable[[Pieces], Iterator[pa.RecordBatch]]
"""What runs on each partition; it gives back a few small rows."""


class ArrowPieces:
    """The pieces of Arrow batches.

    Args:
        plan: The tensors; its columns are those of the batches, in order.
        batches: Of one partition.
    """

    def __init__(self, plan: TensorPlan, batches: Iterable[pa.RecordBatch]) -> None:
        self._decoder, self._batches = PlanDecoder(plan), batches

    @property
    def tensors(self) -> list[TensorSpec]:
        """With what was found so far."""
        return self._decoder.tensors

    @property
    def flaws(self) -> dict[tuple[str, str], Flaw]:
        """What was found so far."""
        return self._decoder.flaws

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            yield from self._decoder.pieces(batch)


class Rows(ABC):
    """Rows in the partitions of some Spark data."""

    @property
    @abstractmethod
    def context(self) -> SparkContext:
        """The Spark that holds them."""

    @abstractmethod
    def run(self, plan: TensorPlan, task: Task, schema: str) -> Sequence[Mapping[str, Any]]:
        """Run a task on every partition.

        Args:
            plan: The tensors that the pieces are of.
            task: Sent to the workers.
            schema: The columns of what the task gives back, as Spark's DDL.

        Returns:
            The rows of all tasks.
        """

    @abstractmethod
    def first(self, count: int) -> Rows:
        """At most so many rows, from the beginning."""

    @abstractmethod
    def spread(self, partitions: int) -> Rows:
        """The same rows in so many partitions of about equal size, on all executors."""

    @abstractmethod
    def held_as(self) -> object | None:
        """What tells the blocks in which Spark holds these rows from others.

        Returns:
            None when Spark does not hold them, so that they may change.
        """

    @abstractmethod
    def same(self, other: Rows) -> bool:
        """Whether both are the same rows, if both are held as the same blocks."""


@dataclass(frozen=True)
class FrameRows(Rows):
    """The rows of a DataFrame.

    Attributes:
        frame: However it is partitioned.
    """

    frame: DataFrame

    @property
    def context(self) -> SparkContext:
        """The Spark of the frame's session."""
        return self.frame.sparkSession.sparkContext

    def run(self, plan: TensorPlan, task: Task, schema: str) -> Sequence[Mapping[str, Any]]:
        """See `Rows`."""

        def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return task(ArrowPieces(plan, batches))

        frame = select_columns(self.frame, plan.columns).mapInArrow(work, schema)
        return [row.asDict() for row in frame.collect()]

    def first(self, count: int) -> Rows:
        """See `Rows`."""
        return FrameRows(self.frame.limit(count))

    def spread(self, partitions: int) -> Rows:
        """See `Rows`."""
        return FrameRows(self.frame.repartition(partitions))

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
