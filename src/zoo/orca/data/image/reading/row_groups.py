"""The rows of a dataset as Arrow tables, one row group at a time, each checked when it is read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.reading.byte_ranges import open_file, read_range
from zoo.orca.data.image.reading.part_file import OpenPart, damaged, open_part
from zoo.orca.data.image.reading.share import Share, Stretch
from zoo.orca.data.image.schema import Schema

__all__ = ["check_names", "iter_tables", "read_group"]


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


def read_group(opened: OpenPart, group: int, columns: Sequence[str]) -> pa.Table:
    """Read columns of a row group.

    A file with an index is checked as a whole when all its columns are read, and page by page
    otherwise; an older file has no checksums, and is checked for its form only.

    Raises:
        InputError: The bytes are damaged, or cannot be read.
    """
    whole = opened.index is not None and len(columns) == len(opened.columns)
    try:
        source = _checked_bytes(opened, group) if whole else open_file(opened.part.place)
        with pq.ParquetFile(
            source, metadata=opened.metadata, pre_buffer=False, page_checksum_verification=True
        ) as file:
            # Without threads: loaders fork their workers.
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
        # Names with dots bring the columns of their beginnings along.
        table = _plain(table.select(list(columns)))
        if opened.index is None:
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as exc:
        if isinstance(exc, InputError):
            raise
        raise damaged(opened.part, group, str(exc)) from exc
    if table.num_rows != opened.rows[group]:
        raise damaged(opened.part, group, f"{table.num_rows} rows instead of {opened.rows[group]}")
    return table


def _tables(stretch: Stretch, names: list[str]) -> Iterator[pa.Table]:
    opened = open_part(stretch.part)
    opened.check_columns(names)
    begin = 0
    for group, rows in enumerate(opened.rows.tolist()):
        start, stop = max(stretch.start - begin, 0), min(stretch.stop - begin, rows)
        if start < stop:
            yield read_group(opened, group, names).slice(start, stop - start)
        begin += rows


def _checked_bytes(opened: OpenPart, group: int) -> pa.NativeFile:
    assert opened.index is not None
    place = opened.index.row_groups[group]
    data = read_range(opened.part.place, place.start, place.end)
    if zlib.crc32(data) != place.crc:
        raise damaged(opened.part, group, "its bytes have another checksum")
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
