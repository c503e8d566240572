"""The records of some chunks by number: what a torch `DataLoader` calls a map-style dataset."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.schema import Schema

__all__ = ["ChunkRecords", "Decoder"]

Decoder = Callable[[bytes], Any]
"""Makes a value of the bytes in a column."""


class _RowGroup(NamedTuple):
    """A row group: its file, its number in it, and its rows."""

    file: Path
    number: int
    rows: int


class ChunkRecords:
    """A sequence of the records of chunks, decoded on access.

    Only the footers are read at the start. One row group at a time is in memory, in each worker;
    reading in order, as a loader does, fetches each of them once.

    Args:
        chunks: The chunk folders, in order.
        schema: The columns of a record.
        decoders: How to decode columns that are stored as bytes; others are given as they are.
        transform: Applied to each record.
    """

    def __init__(
        self,
        chunks: Sequence[Path],
        schema: Schema,
        *,
        decoders: Mapping[str, Decoder],
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.schema, self.decoders, self.transform = dict(schema), dict(decoders), transform
        self._groups = [group for chunk in chunks for group in _row_groups(chunk, self.schema)]
        self._ends = list(accumulate(group.rows for group in self._groups))
        self._loaded: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        """Return the number of records."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        """Return one record, decoded and transformed.

        Raises:
            IndexError: There is no such record.
            InputError: A value cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        position = bisect.bisect_right(self._ends, index)
        group = self._groups[position]
        row = index - (self._ends[position] - group.rows)
        table = self._table(position)
        record = {name: self._value(table, name, row, group) for name in self.schema}
        return self.transform(record) if self.transform is not None else record

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded rows out of what goes to another process."""
        return {**self.__dict__, "_loaded": None}

    def _table(self, position: int) -> pa.Table:
        if self._loaded is None or self._loaded[0] != position:
            group = self._groups[position]
            # Without threads: loaders fork their workers.
            with pq.ParquetFile(group.file, memory_map=True, pre_buffer=False) as file:
                columns = list(self.schema)
                table = file.read_row_group(group.number, columns=columns, use_threads=False)
            self._loaded = position, table.combine_chunks()
        return self._loaded[1]

    def _value(self, table: pa.Table, name: str, row: int, group: _RowGroup) -> Any:
        value = table[name][row].as_py()
        decoder = self.decoders.get(name)
        if decoder is None:
            return value
        try:
            return decoder(value)
        except InputError as exc:
            place = f"column {name!r}, row {row} of row group {group.number} in {group.file}"
            raise InputError(exc.expected, f"{exc.received} ({place})", exc.remedy) from exc


def _row_groups(chunk: Path, schema: Schema) -> list[_RowGroup]:
    files = sorted(file for file in chunk.glob("*.parquet") if not file.name.startswith((".", "_")))
    groups = [group for file in files for group in _row_groups_of_file(file, schema)]
    if not groups:
        raise InputError("a chunk with records", f"{chunk} without any", "Write the dataset again.")
    return groups


def _row_groups_of_file(file: Path, schema: Schema) -> list[_RowGroup]:
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as exc:
        raise InputError("a parquet file", f"{file} ({exc})", "Write the dataset again.") from exc
    missing = set(schema) - set(metadata.schema.to_arrow_schema().names)
    if missing and metadata.num_rows:
        raise InputError(
            f"the columns {list(schema)}", f"{file} without {sorted(missing)}", "Write it again."
        )
    rows = (metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    return [_RowGroup(file, number, count) for number, count in enumerate(rows) if count]
