"""The order of an epoch: batches of row numbers, in the data's order or shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.orca.data.image.reading.share import Share

__all__ = ["RowPlan", "Run", "runs_of"]

_RUN_ROWS = 1024
_RUNS_IN_BUFFER = 8
_BUFFER_BYTES = 2**27

RowNumbers = npt.NDArray[np.int64]
"""Numbers of rows of a share, in the order that they are read."""


class Run(NamedTuple):
    """Consecutive rows that stay near each other, and the bytes that reading one of them costs."""

    start: int
    stop: int
    nbytes: int = 0


@dataclass(frozen=True)
class RowPlan:
    """Cuts the rows of an epoch into batches; the same seed and epoch give the same batches.

    A shuffled epoch takes the runs in random order, fills a buffer with the rows of the next
    runs, and draws them in random order, so rows that are drawn together lie in few places of
    the storage. Each row comes once. Memory holds one buffer of row numbers.

    Args:
        runs: The rows, in order and without a gap.
        batch_size: Rows in a batch.
        shuffle: Whether to shuffle at all.
        buffer: Rows in the buffer.
        seed: Of the random order.
        drop_last: Whether to leave out a last batch that is short.
    """

    runs: tuple[Run, ...]
    batch_size: int = 1
    shuffle: bool = False
    buffer: int = 10_000
    seed: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that no batch can have.

        Raises:
            InputError: A size is below 1 or no int, or the seed is negative.
        """
        least = {"batch_size": 1, "buffer": 1, "seed": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InputError(f"{name} as an int", repr(value), "Give a whole number.")
            if value < smallest:
                raise InputError(f"{name} of at least {smallest}", str(value), "Raise it.")

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.runs[-1].stop if self.runs else 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def batches(self, epoch: int) -> Iterator[RowNumbers]:
        """Return the batches of an epoch.

        Args:
            epoch: The number of the epoch, from 0.
        """
        return _cut(self._orders(epoch), self.batch_size, self.drop_last)

    def _orders(self, epoch: int) -> Iterator[RowNumbers]:
        if not self.shuffle:
            yield from (np.arange(run.start, run.stop) for run in self.runs)
            return
        random = np.random.default_rng((self.seed, epoch))
        waiting: list[Run] = []
        rows = nbytes = 0
        for number in random.permutation(len(self.runs)).tolist():
            run = self.runs[number]
            waiting.append(run)
            rows, nbytes = rows + run.stop - run.start, nbytes + run.nbytes
            if rows >= self.buffer or nbytes >= _BUFFER_BYTES:
                yield random.permutation(_rows_of(waiting))
                waiting, rows, nbytes = [], 0, 0
        if waiting:
            yield random.permutation(_rows_of(waiting))


def runs_of(share: Share, buffer: int) -> tuple[Run, ...]:
    """Cut a share into runs: whole row groups where files can be read by those only.

    Args:
        share: The rows.
        buffer: Rows in the buffer of a shuffle, which should hold a good number of runs.
    """
    step = max(1, min(_RUN_ROWS, buffer // _RUNS_IN_BUFFER))
    runs: list[Run] = []
    begin = 0
    for file, start, stop in share.stretches:
        for left, right, nbytes in _pieces(file.rows, file.groups, step):
            low, high = max(left, start), min(right, stop)
            if low < high:
                runs.append(Run(begin + low - start, begin + high - start, nbytes))
        begin += stop - start
    return tuple(runs)


def _pieces(
    rows: int, groups: Iterable[tuple[int, int]], step: int
) -> Iterator[tuple[int, int, int]]:
    """Yield first row, last row and bytes of each piece of a file."""
    groups = tuple(groups)
    if not groups:
        yield from ((left, min(left + step, rows), 0) for left in range(0, rows, step))
        return
    left = 0
    for count, nbytes in groups:
        yield left, left + count, nbytes
        left += count


def _rows_of(runs: list[Run]) -> RowNumbers:
    return np.concatenate([np.arange(run.start, run.stop) for run in runs])


def _cut(orders: Iterable[RowNumbers], size: int, drop_last: bool) -> Iterator[RowNumbers]:
    rest = np.empty(0, np.int64)
    for order in orders:
        rows = np.concatenate([rest, order]) if len(rest) else order
        whole = len(rows) - len(rows) % size
        yield from (rows[at : at + size] for at in range(0, whole, size))
        rest = rows[whole:]
    if len(rest) and not drop_last:
        yield rest
