"""Values of single rows of a file: read straight from their place, or out of kept row groups."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zoo.orca.data.image.layout.chunk_index import NULL
from zoo.orca.data.image.reading.byte_ranges import read_ranges
from zoo.orca.data.image.reading.part_file import OpenPart, Part, damaged, open_part
from zoo.orca.data.image.reading.row_cache import ByteCache
from zoo.orca.data.image.reading.row_groups import read_group

__all__ = ["Column", "PartReader"]

Column = list[Any] | npt.NDArray[Any]
"""Values in the order of the rows asked for: an array where they are numbers, none missing."""

_FOOTER_BYTES = 2**27
_GROUP_BYTES = 2**28
# A footer becomes objects of about this many times its length.
_SWELL = 4


class _Group(NamedTuple):
    """Columns of a row group in memory."""

    columns: dict[str, Any]
    nbytes: int


class PartReader:
    """Reads rows of parts by number, and remembers footers and row groups within fixed memory.

    Args:
        columns: The columns to read.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was read out of what goes to another process."""
        return {"_columns": self._columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._columns = state["_columns"]
        self._forget()

    def _forget(self) -> None:
        self._opened: ByteCache[OpenPart] = ByteCache(
            _FOOTER_BYTES, lambda opened: _SWELL * opened.nbytes
        )
        self._groups: ByteCache[_Group] = ByteCache(_GROUP_BYTES, lambda group: group.nbytes)

    def open(self, part: Part) -> OpenPart:
        """Return the footer of a part, checked.

        Raises:
            InputError: It is missing or damaged, or lacks a column.
        """
        return self._opened.get(part.place, lambda: self._open(part))

    def read(self, part: Part, rows: npt.NDArray[np.int64]) -> dict[str, Column]:
        """Return the undecoded values of some rows of a part.

        Args:
            part: The file.
            rows: Numbers of its rows, ascending.

        Raises:
            InputError: The file is missing or damaged, or lacks a column.
        """
        opened = self.open(part)
        groups = np.searchsorted(opened.ends, rows, side="right")
        direct = self._direct_columns(opened)
        others = [name for name in self._columns if name not in direct]
        found = self._direct(opened, direct, rows, groups) if direct else {}
        if others:
            found.update(self._kept(opened, others, rows, groups))
        return {name: found[name] for name in self._columns}

    def _open(self, part: Part) -> OpenPart:
        opened = open_part(part)
        opened.check_columns(self._columns)
        return opened

    def _direct_columns(self, opened: OpenPart) -> list[str]:
        index = opened.index
        return [] if index is None else [name for name in self._columns if name in index.columns]

    def _direct(
        self,
        opened: OpenPart,
        names: list[str],
        rows: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
    ) -> dict[str, Column]:
        """Read values where the index says they are, in one pass over the file."""
        assert opened.index is not None
        columns = [opened.index.columns[name] for name in names]
        lengths = np.concatenate([column.lengths[rows] for column in columns])
        crcs = np.concatenate([column.crcs[rows] for column in columns])
        starts = np.concatenate([_starts(opened, name, rows, groups) for name in names])
        there = np.flatnonzero(lengths != NULL)
        order = there[np.argsort(starts[there], kind="stable")]
        stops = starts + lengths
        ranges = list(zip(starts[order].tolist(), stops[order].tolist(), strict=True))
        try:
            values = read_ranges(opened.part.place, ranges)
        except OSError as exc:
            raise damaged(opened.part, None, str(exc)) from exc
        placed: list[Any] = [None] * len(lengths)
        for value, crc, position in zip(values, crcs[order].tolist(), order.tolist(), strict=True):
            if zlib.crc32(value) != crc:
                column, row = divmod(position, len(rows))
                reason = f"row {rows[row]} of {names[column]!r} has another checksum"
                raise damaged(opened.part, int(groups[row]), reason)
            placed[position] = value
        return {name: placed[n * len(rows) : (n + 1) * len(rows)] for n, name in enumerate(names)}

    def _kept(
        self,
        opened: OpenPart,
        names: list[str],
        rows: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
    ) -> dict[str, Column]:
        """Take values out of whole row groups, which stay in memory for the next rows."""
        pieces: dict[str, list[Column]] = {name: [] for name in names}
        for number in np.unique(groups).tolist():
            group = self._groups.get(
                (opened.part.place, number), functools.partial(_load, opened, number, names)
            )
            wanted = rows[groups == number] - opened.first_row(number)
            for name in names:
                pieces[name].append(_take(group.columns[name], wanted))
        return {name: _joined(parts) for name, parts in pieces.items()}


def _starts(
    opened: OpenPart, name: str, rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    starts = np.empty(len(rows), np.int64)
    for number in np.unique(groups).tolist():
        here = groups == number
        starts[here] = opened.offsets(name, number)[rows[here] - opened.first_row(number)]
    return starts


def _load(opened: OpenPart, group: int, names: list[str]) -> _Group:
    table = read_group(opened, group, names)
    return _Group({name: _compact(table[name]) for name in names}, table.nbytes)


def _compact(column: pa.ChunkedArray) -> Any:
    values = column.combine_chunks()
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if numeric and not column.null_count:
        # What torch makes of Python's numbers, whatever the width in the file.
        wide = np.int64 if pa.types.is_integer(column.type) else np.float64
        narrow = np.dtype(column.type.to_pandas_dtype())
        # Arrow's own way to NumPy begins with an import of pandas, which takes longer than reading.
        numbers = np.frombuffer(values.buffers()[1], narrow)
        return numbers[values.offset : values.offset + len(values)].astype(wide, copy=False)
    return values


def _take(column: Any, rows: npt.NDArray[np.int64]) -> Column:
    if isinstance(column, np.ndarray):
        return column[rows]
    first = int(rows[0]) if len(rows) else 0
    in_order = len(rows) and int(rows[-1]) - first + 1 == len(rows)  # rows ascend
    # Not take: it copies, and may overflow the offsets of long values.
    if in_order:
        values: list[Any] = column.slice(first, len(rows)).to_pylist()
        return values
    return [column[row].as_py() for row in rows.tolist()]


def _joined(pieces: list[Column]) -> Column:
    if len(pieces) == 1:
        return pieces[0]
    if all(isinstance(piece, np.ndarray) for piece in pieces):
        return np.concatenate(pieces)
    return [value for piece in pieces for value in piece]
