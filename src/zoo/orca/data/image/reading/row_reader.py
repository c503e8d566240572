"""Rows of a dataset's files: whole row groups in order, or single rows by their number.

A value that lies by itself in the file is read by itself. Others come with their row group, which
stays in memory for the next ones. All are checked when they are read.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import Schema
from zoo.orca.data.image.layout.chunk_index import NULL
from zoo.orca.data.image.reading.byte_ranges import open_file, read_range, read_ranges
from zoo.orca.data.image.reading.chunk_files import ChunkFile, Footer, damaged, read_footer
from zoo.orca.data.image.reading.share import Share, Stretch

__all__ = ["ByteCache", "Column", "RowReader", "check_names", "iter_tables"]

_Value = TypeVar("_Value")

Column = list[Any] | npt.NDArray[Any]
"""Values in the order of the rows asked for: an array where they are numbers, none missing."""

_FOOTER_BYTES = 2**27
_GROUP_BYTES = 2**28
# A footer becomes objects of about this many times its length.
_SWELL = 4


# Whole row groups


def iter_tables(share: Share, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a share in order, a table for each row group, so memory holds one at a time.

    Args:
        share: What to read; see `share_of`.
        columns: The columns, in the order they should have; all of the schema when None.

    Raises:
        InputError: A column is unknown, or a file is missing or damaged.
    """
    names = check_names(share.dataset.schema, columns)
    return (table for stretch in share.stretches for table in _tables(stretch, names))


def check_names(schema: Schema, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read: those named, or all.

    Raises:
        InputError: A name is unknown or there twice, or there is none.
    """
    if columns is None:
        return list(schema)
    names = [columns] if isinstance(columns, str) else list(columns)
    if not names or len(set(names)) < len(names) or not set(names) <= set(schema):
        raise InputError(f"columns out of {list(schema)}", str(names), "Name each once.")
    return names


def read_group(footer: Footer, group: int, columns: Sequence[str]) -> pa.Table:
    """Read columns of a row group.

    A file with an index is checked as a whole when all its columns are read, and page by page
    otherwise; an older file has no checksums, and is checked for its form only.

    Raises:
        InputError: The bytes are damaged, or cannot be read.
    """
    whole = footer.index is not None and len(columns) == len(footer.columns)
    try:
        source = _checked_bytes(footer, group) if whole else open_file(footer.file.place)
        with pq.ParquetFile(
            source, metadata=footer.metadata, pre_buffer=False, page_checksum_verification=True
        ) as file:
            # Without threads: loaders fork their workers.
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
        # Names with dots bring the columns of their beginnings along.
        table = _plain(table.select(list(columns)))
        if footer.index is None:
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as exc:
        if isinstance(exc, InputError):
            raise
        raise damaged(footer.file, group, str(exc)) from exc
    if table.num_rows != footer.rows[group]:
        raise damaged(footer.file, group, f"{table.num_rows} rows instead of {footer.rows[group]}")
    return table


def _tables(stretch: Stretch, names: list[str]) -> Iterator[pa.Table]:
    footer = read_footer(stretch.file)
    footer.check_columns(names)
    begin = 0
    for group, rows in enumerate(footer.rows.tolist()):
        start, stop = max(stretch.start - begin, 0), min(stretch.stop - begin, rows)
        if start < stop:
            yield read_group(footer, group, names).slice(start, stop - start)
        begin += rows


def _checked_bytes(footer: Footer, group: int) -> pa.NativeFile:
    assert footer.index is not None
    place = footer.index.row_groups[group]
    data = read_range(footer.file.place, place.start, place.end)
    if zlib.crc32(data) != place.crc:
        raise damaged(footer.file, group, "its bytes have another checksum")
    return pa.PythonFile(_Region(data, place.start), mode="r")


class _Region(io.RawIOBase):
    """Some bytes of a file, at the place they have in it; what is checked is what is parsed."""

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__()
        self._data, self._start, self._at = memoryview(data), start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
        self._at = origin.get(whence, self._start + len(self._data)) + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        begin = self._at - self._start
        if begin < 0:
            raise OSError(f"byte {self._at} lies before the row group")
        stop = len(self._data) if size is None or size < 0 else begin + size
        data = bytes(self._data[begin:stop])
        self._at += len(data)
        return data


def _plain(table: pa.Table) -> pa.Table:
    """Undo dictionaries that Arrow's own schema in the file asks for."""
    types = [
        field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        for field in table.schema
    ]
    if types == table.schema.types:
        return table
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


# Single rows


class ByteCache(Generic[_Value]):
    """The values used last; the latest one is kept whatever its size.

    Args:
        limit: Bytes that the values may have in all.
        size_of: Tells the bytes of a value.
    """

    def __init__(self, limit: int, size_of: Callable[[_Value], int]) -> None:
        self._limit, self._size_of, self._used = limit, size_of, 0
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return a value, made when it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._used += self._size_of(value)
        self._values[key] = value
        while self._used > self._limit and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self._used -= self._size_of(oldest)
        return value


class _Group(NamedTuple):
    """Columns of a row group in memory."""

    columns: dict[str, Any]
    nbytes: int


class RowReader:
    """Reads rows of files by number, and remembers footers and row groups within fixed memory.

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
        self._footers: ByteCache[Footer] = ByteCache(
            _FOOTER_BYTES, lambda footer: _SWELL * footer.nbytes
        )
        self._groups: ByteCache[_Group] = ByteCache(_GROUP_BYTES, lambda group: group.nbytes)

    def open(self, file: ChunkFile) -> Footer:
        """Return the footer of a file, checked.

        Raises:
            InputError: It is missing or damaged, or lacks a column.
        """
        return self._footers.get(file.place, lambda: self._open(file))

    def read(self, file: ChunkFile, rows: npt.NDArray[np.int64]) -> dict[str, Column]:
        """Return the undecoded values of some rows of a file.

        Args:
            file: The file.
            rows: Numbers of its rows, ascending.

        Raises:
            InputError: The file is missing or damaged, or lacks a column.
        """
        footer = self.open(file)
        groups = np.searchsorted(footer.ends, rows, side="right")
        direct = self._direct_columns(footer)
        others = [name for name in self._columns if name not in direct]
        found = self._direct(footer, direct, rows, groups) if direct else {}
        if others:
            found.update(self._kept(footer, others, rows, groups))
        return {name: found[name] for name in self._columns}

    def _open(self, file: ChunkFile) -> Footer:
        footer = read_footer(file)
        footer.check_columns(self._columns)
        return footer

    def _direct_columns(self, footer: Footer) -> list[str]:
        index = footer.index
        return [] if index is None else [name for name in self._columns if name in index.columns]

    def _direct(
        self,
        footer: Footer,
        names: list[str],
        rows: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
    ) -> dict[str, Column]:
        """Read values where the index says they are, in one pass over the file."""
        assert footer.index is not None
        columns = [footer.index.columns[name] for name in names]
        lengths = np.concatenate([column.lengths[rows] for column in columns])
        crcs = np.concatenate([column.crcs[rows] for column in columns])
        starts = np.concatenate([_starts(footer, name, rows, groups) for name in names])
        there = np.flatnonzero(lengths != NULL)
        order = there[np.argsort(starts[there], kind="stable")]
        stops = starts + lengths
        ranges = list(zip(starts[order].tolist(), stops[order].tolist(), strict=True))
        try:
            values = read_ranges(footer.file.place, ranges)
        except OSError as exc:
            raise damaged(footer.file, None, str(exc)) from exc
        placed: list[Any] = [None] * len(lengths)
        for value, crc, position in zip(values, crcs[order].tolist(), order.tolist(), strict=True):
            if zlib.crc32(value) != crc:
                column, row = divmod(position, len(rows))
                reason = f"row {rows[row]} of {names[column]!r} has another checksum"
                raise damaged(footer.file, int(groups[row]), reason)
            placed[position] = value
        return {name: placed[n * len(rows) : (n + 1) * len(rows)] for n, name in enumerate(names)}

    def _kept(
        self,
        footer: Footer,
        names: list[str],
        rows: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
    ) -> dict[str, Column]:
        """Take values out of whole row groups, which stay in memory for the next rows."""
        pieces: dict[str, list[Column]] = {name: [] for name in names}
        for number in np.unique(groups).tolist():
            group = self._groups.get(
                (footer.file.place, number), functools.partial(_load, footer, number, names)
            )
            wanted = rows[groups == number] - footer.first_row(number)
            for name in names:
                pieces[name].append(_take(group.columns[name], wanted))
        return {name: _joined(found) for name, found in pieces.items()}


def _starts(
    footer: Footer, name: str, rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    starts = np.empty(len(rows), np.int64)
    for number in np.unique(groups).tolist():
        here = groups == number
        starts[here] = footer.offsets(name, number)[rows[here] - footer.first_row(number)]
    return starts


def _load(footer: Footer, group: int, names: list[str]) -> _Group:
    table = read_group(footer, group, names)
    return _Group({name: _compact(table[name]) for name in names}, table.nbytes)


def _compact(column: pa.ChunkedArray) -> Any:
    values = column.combine_chunks()
    # Half of the numbers of 64 bits without a sign are none of torch's.
    whole = pa.types.is_integer(column.type) and column.type != pa.uint64()
    numeric = whole or pa.types.is_floating(column.type)
    if numeric and not column.null_count:
        # What torch makes of Python's numbers, whatever the width in the file.
        wide = np.int64 if whole else np.float64
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
