"""Rows of numpy arrays in this process: what is done with rows, without Spark."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from zoo.orca.data.tensors.flaws import Flaw, count_infinite
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.rows import Broadcast, Job, Rows, Task, TaskPlace

__all__ = ["ArrayRows", "plan_arrays"]

T = TypeVar("T")
_attempts = itertools.count()


def plan_arrays(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray] | None = None
) -> TensorPlan:
    """A tensor for each array, with its dtype and the shape of its rows."""

    def spec(name: str, array: np.ndarray) -> TensorSpec:
        column = ColumnPlan(name, "ndarray", array.dtype.name)
        return TensorSpec((column,), array.dtype.name, array.shape[1:])

    made = [tuple(spec(n, a) for n, a in part.items()) for part in (features, labels or {})]
    return TensorPlan(made[0], made[1])


@dataclass(frozen=True, eq=False)
class ArrayRows(Rows):
    """Arrays with rows in front.

    Attributes:
        partitions: Of each the arrays by name, all of one length.
    """

    partitions: Sequence[Mapping[str, np.ndarray]]

    @classmethod
    def split(cls, arrays: Mapping[str, np.ndarray], partitions: int) -> ArrayRows:
        """Cut arrays into partitions of about equal size, in order."""
        rows = len(next(iter(arrays.values())))
        cuts = [k * rows // partitions for k in range(partitions + 1)]
        return cls([{n: a[i:j] for n, a in arrays.items()} for i, j in itertools.pairwise(cuts)])

    @property
    def application(self) -> str:
        """This process."""
        return "local"

    def job(self, plan: TensorPlan, task: Task, schema: str) -> Job:
        """See `Rows`; the schema is that of what the task gives back."""
        return _ArrayJob(self.partitions, plan, task)

    def broadcast(self, value: bytes) -> Broadcast:
        """See `Rows`."""
        return _Held(value)

    def everywhere(self, function: Callable[[], T]) -> list[T]:
        """See `Rows`."""
        return [function()]

    def first(self, count: int) -> Rows:
        """See `Rows`."""
        whole = self._joined()
        return ArrayRows([{name: array[:count] for name, array in whole.items()}])

    def spread(self, partitions: int, columns: Sequence[str]) -> Rows:
        """See `Rows`; the order stays."""
        whole = self._joined()
        return ArrayRows.split({name: whole[name] for name in columns}, partitions)

    def held_as(self) -> object | None:
        """See `Rows`; arrays may be written to at any time."""
        return None

    def same(self, other: Rows) -> bool:
        """See `Rows`."""
        return self is other

    def _joined(self) -> dict[str, np.ndarray]:
        return {n: np.concatenate([p[n] for p in self.partitions]) for n in self.partitions[0]}


@dataclass(frozen=True)
class _Held:
    value: bytes

    def destroy(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class _ArrayJob:
    partitions: Sequence[Mapping[str, np.ndarray]]
    plan: TensorPlan
    task: Task

    def run(
        self, word: str = "", only: Collection[int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        return [
            row
            for k, arrays in enumerate(self.partitions)
            if only is None or k in only
            for batch in self.task(
                _PlainPieces(self.plan, arrays), TaskPlace(k, next(_attempts), word)
            )
            for row in batch.to_pylist()
        ]


class _PlainPieces:
    """The rows of one partition as one piece."""

    def __init__(self, plan: TensorPlan, arrays: Mapping[str, np.ndarray]) -> None:
        self.tensors = list(plan.tensors)
        self.flaws: dict[tuple[str, str], Flaw] = {}
        self.remarks: dict[tuple[str, str], Flaw] = {}
        self._arrays = arrays

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        found = [self._arrays[spec.columns[0].name] for spec in self.tensors]
        if not len(found[0]):
            return
        for spec, array in zip(self.tensors, found, strict=True):
            count_infinite(self.remarks, spec.name, array)
        yield [a.astype(s.dtype or a.dtype) for s, a in zip(self.tensors, found, strict=True)]
