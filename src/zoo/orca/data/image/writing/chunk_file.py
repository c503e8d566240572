"""Records become one parquet file, a row group of them in memory at a time."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import FeatureType, Schema
from zoo.orca.data.image.layout.chunk_index import (
    INDEX_KEY,
    ChunkIndex,
    ColumnIndex,
    RowGroupSpan,
    index_values,
)
from zoo.orca.data.image.layout.manifest import DatasetFile
from zoo.orca.data.image.layout.quarantine import BadRecord, quarantine_file, write_bad_records
from zoo.orca.data.image.writing.record_columns import (
    ROW_GROUP_BYTES,
    ROW_GROUP_ROWS,
    Record,
    RowGroup,
    arrow_schema,
    is_bytes,
    row_groups,
    to_array,
)
from zoo.orca.data.image.writing.verify import Screening
from zoo.orca.data.storage import Location, is_local, local_path

__all__ = [
    "ROW_GROUP_BYTES",
    "ROW_GROUP_ROWS",
    "ChunkResult",
    "Record",
    "check_block_size",
    "is_older",
    "kept_chunk",
    "write_chunk",
]

_FILE_NAME = "part-00000.parquet"
_MAGIC = b"PAR1"
_BAD_KEY = b"zoo.bad"
_ONE_PAGE = 2**31 - 1


class ChunkResult(NamedTuple):
    """A chunk that is on disk: its file, and how many records were left out as bad."""

    file: DatasetFile
    bad: int


def check_block_size(block_size: int) -> None:
    """Refuse a number of records per chunk that is not a positive int.

    Raises:
        InputError: It is not.
    """
    if not isinstance(block_size, int) or block_size < 1:
        raise InputError("block_size as a positive int", repr(block_size), "Give rows per chunk.")


def write_chunk(
    folder: Location,
    schema: Schema,
    records: Iterable[Record | BadRecord],
    screening: Screening | None = None,
) -> ChunkResult:
    """Write records as the one file of a chunk folder.

    The file gets its name when it is whole, so a task that Spark runs twice does no harm. Only the
    chunk's own folder is made: a missing parent means that the write has failed elsewhere. The
    same records give the same bytes.

    Args:
        folder: The chunk's folder.
        schema: The columns.
        records: Dicts with the schema's keys, and a `BadRecord` for each that could not be made.
        screening: What is asked of image files, and what becomes of bad ones.

    Raises:
        ContractError: A record has other keys than the schema.
        InputError: A value cannot be stored, or a file is bad and `on_error` is "fail".
    """
    screening = screening or Screening()
    folder.mkdir(exist_ok=True)
    bad: list[BadRecord] = []
    with _whole_file(folder / _FILE_NAME) as stream:
        sink = _Sink(stream)
        rows = _write_rows(sink, schema, row_groups(schema, records, screening, bad), bad)
        footer_crc = sink.take_crc()
        if screening.on_error == "quarantine":
            _list_bad(quarantine_file(folder), bad)
    path = f"{folder.name}/{_FILE_NAME}"
    return ChunkResult(DatasetFile(path, rows, sink.tell(), footer_crc), len(bad))


def kept_chunk(folder: Location, screening: Screening) -> ChunkResult | None:
    """Return what an earlier write of the same records left of a chunk, if that is whole.

    Only the end of the file is read: it has its name, so it was whole when it got it.
    """
    place = folder / _FILE_NAME
    try:
        with place.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            length = _footer_length(stream, size)
            stream.seek(size - length)
            footer = stream.read(length)
        facts = pq.read_metadata(pa.BufferReader(footer)).metadata or {}
        index = ChunkIndex.decode(facts[INDEX_KEY])
        bad = int(facts[_BAD_KEY])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    end = index.row_groups[-1].end if index.row_groups else len(_MAGIC)
    listed = not bad or screening.on_error != "quarantine" or quarantine_file(folder).exists()
    if end + length != size or not listed:
        return None
    path = f"{folder.name}/{_FILE_NAME}"
    return ChunkResult(DatasetFile(path, index.rows, size, zlib.crc32(footer)), bad)


def is_older(folder: Location, schema: Schema, records: Iterable[Record | BadRecord]) -> bool:
    """Whether a chunk is older than one of its image files; those far from here are not asked."""
    if not isinstance(folder, Path):
        return False
    images = [name for name, field in schema.items() if field.feature_type is FeatureType.IMAGE]
    written = os.stat(folder / _FILE_NAME).st_mtime_ns
    for record in records:
        if isinstance(record, BadRecord):
            paths = [record.path]
        else:
            paths = [record[name] for name in images]
        if any(_changed_ns(path) >= written for path in paths):
            return True
    return False


def _changed_ns(path: str | os.PathLike[str]) -> int:
    try:
        facts = os.stat(path if str(path).startswith("/") else local_path(path))
    except (OSError, ValueError):  # gone, far from here, or no path: judged when it is read
        return 0
    return max(facts.st_mtime_ns, facts.st_ctime_ns)


def _list_bad(place: Location, bad: Sequence[BadRecord]) -> None:
    if not bad:
        place.unlink(missing_ok=True)  # of an earlier try, with other files
        return
    place.parent.mkdir(exist_ok=True)
    with _whole_file(place) as listing:
        write_bad_records(listing, bad)


class _Sink(io.RawIOBase):
    """Counts what goes into a file, and sums it up."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._at, self._crc = stream, 0, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._crc = zlib.crc32(data, self._crc)
        self._at += len(data)
        self._stream.write(data)
        return len(data)

    def take_crc(self) -> int:
        """Return the crc32 of what came since this was asked last."""
        crc, self._crc = self._crc, 0
        return crc


@contextmanager
def _whole_file(place: Location) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is whole, or, far from here, is closed."""
    local = is_local(place)
    draft = place.with_name(f".{uuid.uuid4().hex}.parquet") if local else place
    try:
        with draft.open("wb") as stream:
            yield stream
        if local:
            os.replace(str(draft), str(place))
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _footer_length(stream: BinaryIO, size: int) -> int:
    """Return the length of the metadata, its length, and the magic at a file's end."""
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    if len(tail) < 8 or tail[4:] != _MAGIC:
        raise ValueError("no parquet file")
    length = 8 + int.from_bytes(tail[:4], "little")
    if length > size:
        raise ValueError("a parquet file that lacks its start")
    return length


def _write_rows(
    sink: _Sink, schema: Schema, parts: Iterator[RowGroup], bad: Sequence[BadRecord]
) -> int:
    """Write row groups, and the index behind them; return the number of rows."""
    columns = arrow_schema(schema)
    spans: list[RowGroupSpan] = []
    indexes: dict[str, list[ColumnIndex]] = {
        name: [] for name, field in schema.items() if is_bytes(field)
    }
    with pq.ParquetWriter(sink, columns, **_options(schema)) as writer:
        start, _ = sink.tell(), sink.take_crc()
        for group in parts:
            rows = len(next(iter(group.values())))
            arrays = [to_array(name, schema[name], group[name]) for name in schema]
            table = pa.Table.from_arrays(arrays, schema=columns)
            writer.write_table(table, row_group_size=rows)
            spans.append(RowGroupSpan(rows, start, sink.tell(), sink.take_crc()))
            start = sink.tell()
            for name, found in indexes.items():
                found.append(index_values(group[name]))
        index = ChunkIndex(tuple(spans), {n: ColumnIndex.join(p) for n, p in indexes.items()})
        # Known now only: the row groups fill the list of bad records on their way.
        writer.add_key_value_metadata({INDEX_KEY: index.encode(), _BAD_KEY: str(len(bad))})
    return index.rows


def _options(schema: Schema) -> dict[str, Any]:
    plain = [name for name, field in schema.items() if is_bytes(field)]
    others = [name for name in schema if name not in plain]
    # Image files and archives are compressed already: a codec costs time and saves nothing, and a
    # dictionary or a minimum of them is worse than useless. One page for each row group: then the
    # place of a value follows from lengths.
    return {
        "compression": {name: "NONE" if name in plain else "SNAPPY" for name in schema},
        "use_dictionary": others,
        "write_statistics": others,
        "data_page_size": _ONE_PAGE,
        "max_rows_per_page": _ONE_PAGE,
        "data_page_version": "1.0",
        "write_page_checksum": True,
    }
