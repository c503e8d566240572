"""Rows in partitions, wherever they are: what ingest and evaluation run their tasks on.

Each kind of data says how its partitions become pieces: one array for each tensor, some megabytes
of rows at a time. What a task does with the pieces does not depend on the kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import Flaw
from zoo.orca.data.tensors.plan import TensorPlan, TensorSpec

__all__ = ["ArrowPieces", "Broadcast", "Job", "Pieces", "Rows", "Task", "TaskPlace"]

T = TypeVar("T")


class Pieces(Protocol):
    """The rows of one partition."""

    @property
    def tensors(self) -> list[TensorSpec]:
        """The tensors, shapes and dtypes known after the first piece."""

    @property
    def flaws(self) -> dict[tuple[str, str], Flaw]:
        """What was found so far that cannot be used, by column and kind."""

    @property
    def remarks(self) -> dict[tuple[str, str], Flaw]:
        """What was found so far that can be used and is seldom meant, by column and kind."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Pieces in order: an array for each tensor; none any more after a flaw."""


@dataclass(frozen=True)
class TaskPlace:
    """Which task this is.

    Attributes:
        partition: The partition.
        attempt: Another one for each try, and for each copy of a task.
        word: What whoever started the job says to all its tasks.
    """

    partition: int
    attempt: int
    word: str = ""


Task = Callable[[Pieces, TaskPlace], Iterator[pa.RecordBatch]]
"""What runs on each partition; it gives back a few small rows."""


class Job(Protocol):
    """A task on the partitions of some rows, as they were planned when it was made.

    However often it runs, a partition is made of the same part of the source, by the same steps.
    """

    def run(
        self, word: str = "", only: Collection[int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Run it.

        Args:
            word: For all tasks.
            only: The partitions; None for all.

        Returns:
            The rows of all tasks.
        """


class Broadcast(Protocol):
    """Bytes that tasks read."""

    @property
    def value(self) -> bytes:
        """The bytes, in a task."""

    def destroy(self) -> None:
        """Let go of them."""


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

    @property
    def remarks(self) -> dict[tuple[str, str], Flaw]:
        """What was found so far."""
        return self._decoder.remarks

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            yield from self._decoder.pieces(batch)


class Rows(ABC):
    """Rows in the partitions of some data."""

    @property
    @abstractmethod
    def application(self) -> str:
        """Names what holds them, and what ends with them."""

    @abstractmethod
    def job(self, plan: TensorPlan, task: Task, schema: str) -> Job:
        """Plan a task on every partition.

        Args:
            plan: The tensors that the pieces are of.
            task: Sent to the workers.
            schema: The columns of what the task gives back, as Spark's DDL.
        """

    def run(self, plan: TensorPlan, task: Task, schema: str) -> Sequence[Mapping[str, Any]]:
        """Plan a task on every partition and run it; see `job`."""
        return self.job(plan, task, schema).run()

    @abstractmethod
    def broadcast(self, value: bytes) -> Broadcast:
        """Bytes for the tasks of several jobs."""

    @abstractmethod
    def everywhere(self, function: Callable[[], T]) -> list[T]:
        """Call a function wherever tasks run; on each host once or several times.

        Returns:
            What it said; nothing from places that are busy too long or gone.
        """

    @abstractmethod
    def first(self, count: int) -> Rows:
        """At most so many rows, from the beginning."""

    @abstractmethod
    def spread(self, partitions: int, columns: Sequence[str]) -> Rows:
        """The same rows in so many partitions of about equal size, wherever tasks run.

        A partition has the same rows in the same order whenever it is made, as far as the rows
        that it comes from have.

        Args:
            partitions: How many.
            columns: Those that are needed.
        """

    @abstractmethod
    def held_as(self) -> object | None:
        """What tells the blocks that hold these rows in memory from others.

        Returns:
            None when nothing holds them, so that they may change.
        """

    @abstractmethod
    def same(self, other: Rows) -> bool:
        """Whether both are the same rows, if both are held as the same blocks."""
