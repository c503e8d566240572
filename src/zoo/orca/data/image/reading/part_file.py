"""A parquet file of a dataset as its readers see it: counted, then opened, then checked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.layout.chunk_index import INDEX_KEY, ChunkIndex
from zoo.orca.data.image.reading.byte_ranges import read_range, read_tail, size_of
from zoo.orca.data.storage import Location

__all__ = ["OpenPart", "Part", "damaged", "open_part"]

_MAGIC = b"PAR1"
_TAIL = 2**15


@dataclass(frozen=True)
class Part:
    """A parquet file, and what is known of it before it is opened.

    Args:
        place: The file.
        rows: Its records; -1 before anyone has counted them.
        size: Its bytes, when the dataset says so.
        footer_crc: The CRC-32 of its footer, when the dataset says so.
        groups: Rows and bytes of its row groups, when it can only be read by whole ones.
    """

    place: Location
    rows: int = -1
    size: int | None = None
    footer_crc: int | None = None
    groups: tuple[tuple[int, int], ...] = ()


class OpenPart:
    """The footer of a part: where its row groups and values lie.

    Holds no open file, so a reader can keep many and fork.

    Args:
        part: The file.
        metadata: Its footer.
        nbytes: The length of the footer, which tells what it costs to keep.
    """

    def __init__(self, part: Part, metadata: pq.FileMetaData, nbytes: int) -> None:
        self.part, self.metadata, self.nbytes = part, metadata, nbytes
        self.index = _index(part, metadata)
        groups = range(metadata.num_row_groups)
        self.rows = np.array([metadata.row_group(n).num_rows for n in groups], np.int64)
        self.ends: npt.NDArray[np.int64] = np.cumsum(self.rows)
        if self.index and [group.rows for group in self.index.row_groups] != self.rows.tolist():
            raise damaged(part, None, "its index has other row groups")

    @cached_property
    def columns(self) -> dict[str, int]:
        """The number of each column among the file's columns, none of which is nested."""
        schema = self.metadata.schema
        return {schema.column(n).path: n for n in range(len(schema))}

    def first_row(self, group: int) -> int:
        """Return the number that the first row of a row group has in the file."""
        return int(self.ends[group] - self.rows[group])

    def offsets(self, name: str, group: int) -> npt.NDArray[np.int64]:
        """Return where the values of an indexed column begin in the file.

        Args:
            name: The column.
            group: The row group.
        """
        assert self.index is not None
        chunk = self.metadata.row_group(group).column(self.columns[name])
        return self.index.offsets(name, group, chunk.data_page_offset + chunk.total_compressed_size)

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuse a file that lacks a column.

        Raises:
            InputError: It does.
        """
        missing = [name for name in names if name not in self.columns]
        if missing and self.metadata.num_rows:
            raise InputError(
                f"the columns {list(names)}",
                f"{self.part.place} without {missing}",
                "Copy or write the dataset again.",
            )


def open_part(part: Part) -> OpenPart:
    """Read and check the footer of a part.

    Raises:
        InputError: The file is missing, of another size, damaged, or has other rows.
    """
    try:
        size = size_of(part.place)
        if part.size is not None and size != part.size:
            raise damaged(part, None, f"{size} bytes instead of {part.size}")
        tail = read_tail(part.place, size, _TAIL)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != _MAGIC or length > size:
            raise damaged(part, None, "no parquet footer at its end")
        if length > len(tail):
            tail = read_range(part.place, size - length, size)
        footer = tail[-length:]
        if part.footer_crc is not None and zlib.crc32(footer) != part.footer_crc:
            raise damaged(part, None, "its footer has another checksum")
        # The footer alone is a file whose footer can be read, and costs one read of the storage.
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    except (pa.ArrowException, OSError) as exc:
        raise damaged(part, None, str(exc)) from exc
    if part.rows >= 0 and metadata.num_rows != part.rows:
        raise damaged(part, None, f"{metadata.num_rows} rows instead of {part.rows}")
    return OpenPart(part, metadata, length)


def damaged(part: Part, group: int | None, reason: str) -> InputError:
    """Return the error about a file that is not as it was written."""
    where = str(part.place) if group is None else f"{part.place}, row group {group}"
    return InputError(
        "a parquet file as the dataset's writer left it",
        f"{where} ({reason})",
        "Copy or write the dataset again.",
    )


def _index(part: Part, metadata: pq.FileMetaData) -> ChunkIndex | None:
    text = (metadata.metadata or {}).get(INDEX_KEY)
    if text is None:
        return None
    try:
        return ChunkIndex.decode(text)
    except InputError as exc:
        raise damaged(part, None, str(exc)) from exc
