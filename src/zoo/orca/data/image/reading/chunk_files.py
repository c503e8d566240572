"""The parquet files of a dataset as its readers see them: listed, then footer, then checked."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.layout.chunk_index import INDEX_KEY, ChunkIndex
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder
from zoo.orca.data.image.reading.byte_ranges import read_range, read_tail, size_of
from zoo.orca.data.storage import Location

__all__ = ["ChunkFile", "Footer", "damaged", "list_files", "read_footer"]

_MAGIC = b"PAR1"
_TAIL = 2**15


@dataclass(frozen=True)
class ChunkFile:
    """A parquet file of a chunk, and what is known of it before it is footer.

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


class Footer:
    """The footer of a chunk file: where its row groups and values lie.

    Holds no open file, so a reader can keep many and fork.

    Args:
        file: The file.
        metadata: Its footer.
        nbytes: The length of the footer, which tells what it costs to keep.
    """

    def __init__(self, file: ChunkFile, metadata: pq.FileMetaData, nbytes: int) -> None:
        self.file, self.metadata, self.nbytes = file, metadata, nbytes
        self.index = _index(file, metadata)
        groups = range(metadata.num_row_groups)
        self.rows = np.array([metadata.row_group(n).num_rows for n in groups], np.int64)
        self.ends: npt.NDArray[np.int64] = np.cumsum(self.rows)
        if self.index and [group.rows for group in self.index.row_groups] != self.rows.tolist():
            raise damaged(file, None, "its index has other row groups")

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
                f"{self.file.place} without {missing}",
                "Copy or write the dataset again.",
            )


def read_footer(file: ChunkFile) -> Footer:
    """Read and check the footer of a chunk file.

    Raises:
        InputError: The file is missing, of another size, damaged, or has other rows.
    """
    try:
        size = size_of(file.place)
        if file.size is not None and size != file.size:
            raise damaged(file, None, f"{size} bytes instead of {file.size}")
        tail = read_tail(file.place, size, _TAIL)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != _MAGIC or length > size:
            raise damaged(file, None, "no parquet footer at its end")
        if length > len(tail):
            tail = read_range(file.place, size - length, size)
        ending = tail[-length:]
        if file.footer_crc is not None and zlib.crc32(ending) != file.footer_crc:
            raise damaged(file, None, "its footer has another checksum")
        # The footer alone is a file whose footer can be read, and costs one read of the storage.
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + ending))
    except (pa.ArrowException, OSError) as exc:
        raise damaged(file, None, str(exc)) from exc
    if file.rows >= 0 and metadata.num_rows != file.rows:
        raise damaged(file, None, f"{metadata.num_rows} rows instead of {file.rows}")
    return Footer(file, metadata, length)


def damaged(file: ChunkFile, group: int | None, reason: str) -> InputError:
    """Return the error about a file that is not as it was written."""
    where = str(file.place) if group is None else f"{file.place}, row group {group}"
    return InputError(
        "a parquet file as the dataset's writer left it",
        f"{where} ({reason})",
        "Copy or write the dataset again.",
    )


def _index(file: ChunkFile, metadata: pq.FileMetaData) -> ChunkIndex | None:
    text = (metadata.metadata or {}).get(INDEX_KEY)
    if text is None:
        return None
    try:
        return ChunkIndex.decode(text)
    except InputError as exc:
        raise damaged(file, None, str(exc)) from exc


def list_files(dataset: DatasetFolder, chunks: Iterable[int]) -> list[ChunkFile]:
    """Return the files of some chunks, in order, with their rows.

    A manifest tells the rows; datasets without one have only the footers, so each is read.

    Args:
        dataset: The dataset.
        chunks: The numbers of the chunks.

    Raises:
        InputError: There is no manifest, and a file is missing, damaged or lacks a column.
    """
    if dataset.manifest is not None:
        return _listed(dataset, list(chunks))
    names = list(dataset.schema)
    return [file for chunk in chunks for file in _counted(dataset.chunks[chunk], names)]


def _listed(dataset: DatasetFolder, chunks: list[int]) -> list[ChunkFile]:
    by_chunk: dict[str, list[ChunkFile]] = {}
    assert dataset.manifest is not None
    for listed in dataset.manifest.files:
        place = dataset.path / listed.path
        file = ChunkFile(place, listed.rows, listed.bytes, listed.footer_crc)
        by_chunk.setdefault(listed.path.split("/")[0], []).append(file)
    return [file for chunk in chunks for file in by_chunk.get(dataset.chunks[chunk].name, ())]


def _counted(chunk: Location, names: list[str]) -> Iterator[ChunkFile]:
    places = sorted(_parquet_files(chunk), key=lambda place: place.name)
    if not places:
        raise InputError("a chunk with records", f"{chunk} without any", "Write the dataset again.")
    for place in places:
        footer = read_footer(ChunkFile(place))
        footer.check_columns(names)
        yield ChunkFile(place, footer.metadata.num_rows, groups=_whole_groups(footer))


def _whole_groups(footer: Footer) -> tuple[tuple[int, int], ...]:
    if footer.index is not None:
        return ()
    groups = (footer.metadata.row_group(n) for n in range(footer.metadata.num_row_groups))
    return tuple((group.num_rows, group.total_byte_size) for group in groups)


def _parquet_files(chunk: Location) -> Iterator[Location]:
    try:
        for entry in chunk.iterdir():
            if entry.name.endswith(".parquet") and not entry.name.startswith((".", "_")):
                yield entry
    except OSError as exc:
        raise InputError(
            "a chunk's folder", f"{chunk} ({exc})", "Write the dataset again."
        ) from exc
