"""Where each value of a chunk file lies, and its checksum: a text in the file's own footer.

Columns stored as bytes are written plain, uncompressed and with one page for each row group. So
in the column chunk of a row group the values are the last bytes, each after its length in four
bytes, little-endian, and the lengths alone tell the place of every value.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

__all__ = ["INDEX_KEY", "NULL", "ChunkIndex", "ColumnIndex", "RowGroupSpan", "index_values"]

INDEX_KEY = b"zoo.index"
"""The key in a parquet footer's metadata that holds the text of the index."""

NULL = 2**32 - 1
"""The length of a value that is missing, and has no bytes in the file."""

_VERSION = 1
_PREFIX = 4  # Parquet's own length before each plain value
_Words = npt.NDArray[np.uint32]


class RowGroupSpan(NamedTuple):
    """A row group: its rows, the file's bytes from `start` up to `end`, and their crc32."""

    rows: int
    start: int
    end: int
    crc: int


@dataclass(frozen=True, eq=False)
class ColumnIndex:
    """The length and the crc32 of each value of a column, in the order of the file's rows."""

    lengths: _Words
    crcs: _Words

    @classmethod
    def join(cls, parts: Sequence[ColumnIndex]) -> ColumnIndex:
        """Return the index of several row groups, one after the other."""
        none = np.empty(0, np.uint32)
        return cls(
            np.concatenate([none, *(part.lengths for part in parts)]),
            np.concatenate([none, *(part.crcs for part in parts)]),
        )


@dataclass(frozen=True, eq=False)
class ChunkIndex:
    """The row groups of a chunk file, and an index for each column that is stored as bytes."""

    row_groups: tuple[RowGroupSpan, ...]
    columns: Mapping[str, ColumnIndex]
    _starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find the first row of each row group."""
        starts = [0]
        for group in self.row_groups:
            starts.append(starts[-1] + group.rows)
        object.__setattr__(self, "_starts", tuple(starts))

    @property
    def rows(self) -> int:
        """The number of rows in the file."""
        return self._starts[-1]

    def rows_of(self, row_group: int) -> slice:
        """Return the rows of a row group, counted through the file."""
        return slice(self._starts[row_group], self._starts[row_group + 1])

    def offsets(self, column: str, row_group: int, column_chunk_end: int) -> npt.NDArray[np.int64]:
        """Return the place of each value of a row group in the file.

        Args:
            column: A column that is stored as bytes.
            row_group: The number of the row group.
            column_chunk_end: The place after the column's last byte in that row group, as the
                footer has it.

        Returns:
            The places of the values' first bytes, behind their lengths; -1 for missing values.
        """
        lengths = self.columns[column].lengths[self.rows_of(row_group)]
        missing = lengths == NULL
        sizes = np.where(missing, 0, lengths.astype(np.int64) + _PREFIX)
        ends = column_chunk_end - sizes.sum() + np.cumsum(sizes)
        return np.where(missing, -1, ends - lengths)

    def encode(self) -> str:
        """Return the index as text, the same for the same content."""
        columns = {
            name: {"lengths": _to_text(column.lengths), "crcs": _to_text(column.crcs)}
            for name, column in self.columns.items()
        }
        groups = [group._asdict() for group in self.row_groups]
        content = {"version": _VERSION, "row_groups": groups, "columns": columns}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes) -> ChunkIndex:
        """Read an index back from its text.

        Raises:
            InputError: The text is no index of this version, or does not agree with itself.
        """
        try:
            content = json.loads(text)
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r}")
            return cls(
                tuple(_span(group) for group in content["row_groups"]),
                {str(name): _column(column) for name, column in content["columns"].items()},
            )._checked()
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InputError(
                f"the index of a chunk file, version {_VERSION}",
                f"another text ({type(exc).__name__}: {exc})",
                "Write the dataset again.",
            ) from exc

    def _checked(self) -> ChunkIndex:
        for name, column in self.columns.items():
            if not len(column.lengths) == len(column.crcs) == self.rows:
                raise ValueError(f"column {name!r} has another number of values than rows")
        return self


def index_values(values: Sequence[bytes | None]) -> ColumnIndex:
    """Return the lengths and checksums of values."""
    count = len(values)
    if None in values:
        lengths = (NULL if value is None else len(value) for value in values)
        crcs = (0 if value is None else zlib.crc32(value) for value in values)
        return ColumnIndex(
            np.fromiter(lengths, np.uint32, count), np.fromiter(crcs, np.uint32, count)
        )
    return ColumnIndex(
        np.fromiter(map(len, values), np.uint32, count),  # type: ignore[arg-type] # no None here
        np.fromiter(map(zlib.crc32, values), np.uint32, count),  # type: ignore[arg-type]
    )


def _to_text(words: _Words) -> str:
    return base64.b64encode(words.astype("<u4", copy=False).tobytes()).decode("ascii")


def _from_text(text: str) -> _Words:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4")


def _span(group: Mapping[str, Any]) -> RowGroupSpan:
    span = RowGroupSpan(*(int(group[name]) for name in RowGroupSpan._fields))
    if not (span.rows >= 0 and 0 <= span.start <= span.end):
        raise ValueError(f"a row group that cannot be: {span}")
    return span


def _column(column: Mapping[str, str]) -> ColumnIndex:
    return ColumnIndex(_from_text(column["lengths"]), _from_text(column["crcs"]))
