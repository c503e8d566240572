"""What the footers of Parquet files say: whether Spark would read all of their rows.

Spark hands out row groups by where the footer says that they lie. One that lies outside its file
is nobody's, and its rows are missing without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError

__all__ = ["UnfitForSparkError", "check_footers", "damaged", "footer_of"]

# Of more, the sizes of files and pages have to say enough: footers of wide tables are long.
_MOST_CHUNKS = 200_000
# In the names of logical types. Spark makes doubles of unsigned 64 bits.
_UNFIT = ("Float16", "nanoseconds", "Int(bitWidth=64, isSigned=false)")


class UnfitForSparkError(Exception):
    """Spark's reader would refuse the files, or read other values than are in them."""


def check_footers(files: Sequence[Any], *, exact: bool = True) -> None:
    """Look at the footers of those files that are local.

    Args:
        files: The files.
        exact: Whether Spark chooses the types, and has to keep every value.

    Raises:
        InputError: A file is no Parquet, its footer contradicts itself, or names of columns
            differ from those of another file only in case.
        UnfitForSparkError: Arrow has to read them.
    """
    left = _MOST_CHUNKS
    columns: dict[str, _Column] = {}
    for file in files:
        if left > 0 and isinstance(file, Path) and not _is_encrypted(file):
            footer = footer_of(file)
            left -= 1 + footer.num_row_groups * footer.num_columns
            for reason in _contradictions(footer, file.stat().st_size):
                raise damaged(str(file), reason)
            if exact:
                _check_columns(str(file), footer, columns)


class _Column(NamedTuple):
    """A column that holds values, its type in Parquet's words, and the file where it was first."""

    path: str
    kind: tuple[Any, ...]
    file: str


def _check_columns(file: str, footer: pq.FileMetaData, known: dict[str, _Column]) -> None:
    unfit = _unfit(footer)
    if unfit is not None:
        raise UnfitForSparkError(f"{unfit} in {file}")
    for at in range(footer.num_columns):
        leaf = footer.schema.column(at)
        kind = (leaf.physical_type, str(leaf.logical_type), leaf.max_repetition_level)
        found = _Column(leaf.path, kind, file)
        other = known.setdefault(leaf.path.lower(), found)
        if other.path != found.path and other.file == file:
            raise UnfitForSparkError(f"columns {other.path!r} and {found.path!r} in {file}")
        if other.path != found.path:
            raise InputError(
                f"the names of columns as in {other.file}, such as {other.path!r}",
                f"{found.path!r} in {file}",
                "Rename it, or read the files one by one.",
            )
        if other.kind != kind:
            raise UnfitForSparkError(
                f"column {leaf.path!r} of another type in {other.file} than in {file}"
            )


def _unfit(footer: pq.FileMetaData) -> str | None:
    """What in a file Spark does not know, or would change."""
    for at in range(footer.num_columns):
        leaf = footer.schema.column(at)
        kind = str(leaf.logical_type)
        if any(mark in kind for mark in _UNFIT):
            return f"column {leaf.path!r} of type {kind}"
    for field in footer.schema.to_arrow_schema():
        if pa.types.is_duration(field.type):
            return f"column {field.name!r} of type {field.type}"
    if footer.num_row_groups and footer.num_columns:
        packed = footer.row_group(0).column(0).compression
        return f"pages packed with {packed}" if packed == "BROTLI" else None
    return None


def _is_encrypted(file: Path) -> bool:
    """Whether the footer is secret; Spark may have been told the key."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4))
        return stream.read() == b"PARE"


def footer_of(place: Any) -> pq.FileMetaData:
    """The footer of a file.

    Raises:
        InputError: It has none.
    """
    try:
        with place.open("rb") as stream:
            return pq.read_metadata(stream)
    except (pa.ArrowException, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # of the file system
        raise damaged(str(place), str(exc)) from exc


def damaged(file: str, reason: str) -> InputError:
    """The error about a file that cannot be read."""
    shown = f"{file} ({' '.join(reason.split())})"
    return InputError("whole Parquet files", shown, "Write the file again, or leave it out.")


def _contradictions(footer: pq.FileMetaData, size: int) -> Iterator[str]:
    flat = [footer.schema.column(at).max_repetition_level == 0 for at in range(footer.num_columns)]
    rows = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        rows += group.num_rows
        chunks = [group.column(at) for at in range(group.num_columns)]
        for chunk, one_each in zip(chunks, flat, strict=False):
            held = chunk.num_values
            if held != group.num_rows if one_each else held < group.num_rows:
                yield (
                    f"{held} values of column {chunk.path_in_schema!r} for the {group.num_rows} "
                    f"rows of row group {number}"
                )
        if chunks and group.num_rows:
            # The task reads a row group that has the byte in its middle.
            start, length = _start(chunks[0]), sum(chunk.total_compressed_size for chunk in chunks)
            if not 0 < start <= start + length // 2 < size:
                yield f"row group {number} lies at byte {start}, with {length} of {size} bytes"
    if rows != footer.num_rows:
        yield f"{footer.num_rows} rows in all, and {rows} in its row groups"


def _start(chunk: Any) -> int:
    first, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
    return int(first if dictionary is None or not 0 < dictionary < first else dictionary)
