"""The records of a dataset by number: what a torch `DataLoader` calls a map-style dataset."""

from __future__ import annotations

import inspect
import operator
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import FeatureType, Schema
from zoo.orca.data.image.image_decoder import ImageDecoder
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.ndarray_codec import decode_ndarray
from zoo.orca.data.image.reading.row_reader import Column, RowReader, check_names
from zoo.orca.data.image.reading.share import Share, say_unused, share_of

__all__ = ["BAD_VALUE", "Decoder", "RecordPlace", "Records", "choose_decoders", "read_records"]

Decoder = Callable[[bytes], Any]
"""Makes a value of the bytes in a column."""

Record = dict[str, Any]

BAD_VALUE = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What decoders raise on data they cannot use; other errors are the program's own."""


class RecordPlace(NamedTuple):
    """Where a record lies: its file, and its row there."""

    file: str
    row: int


class Records(Sequence[Any]):
    """A sequence of the records of a share, decoded on access.

    A value that lies by itself in the file is read by itself, and its checksum is checked; numbers
    and texts come with the row group they are in, which stays in memory for the next ones, as far
    as a few hundred megabytes allow. Datasets of other writers are read by whole row groups.

    Args:
        share: The rows; see `share_of`.
        columns: The columns of a record; all when None.
        decoders: How to decode columns that are stored as bytes; others are given as they are.
        transform: Applied to each record.
    """

    def __init__(
        self,
        share: Share,
        *,
        columns: Sequence[str] | None = None,
        decoders: Mapping[str, Decoder],
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.columns = check_names(share.dataset.schema, columns)
        self.decoders = {name: decoders[name] for name in self.columns if name in decoders}
        self.transform = transform
        self._takes_key = transform is not None and _takes_key(transform)
        self._stretches = share.stretches
        lengths = [stretch.stop - stretch.start for stretch in share.stretches]
        self._ends: npt.NDArray[np.int64] = np.cumsum(np.array(lengths, np.int64))
        self._reader = RowReader(self.columns)

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one record, or a list of those of a slice, decoded and transformed.

        Raises:
            IndexError: There is no such record.
            InputError: A file is damaged, or a value cannot be decoded.
        """
        if isinstance(index, slice):
            return self.__getitems__(range(*index.indices(len(self))))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> list[Any]:
        """Return several records in the order asked for, with one pass over each file.

        torch's loaders fetch a batch through this.

        Raises:
            IndexError: There is no such record.
            InputError: A file is damaged, or a value cannot be decoded.
        """
        rows = self.numbers(indices)
        return [self.finish(record, row) for row, record in self.raw_records(rows)]

    def numbers(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the numbers of records, where negative indices count from the end.

        Raises:
            IndexError: There is no such record.
        """
        size = len(self)
        rows = np.array([operator.index(index) for index in indices], np.int64)
        if len(rows) and not -size <= rows.min() <= rows.max() < size:
            outside = rows[(rows < -size) | (rows >= size)][0]
            raise IndexError(f"record {outside} of {size}")
        return np.where(rows < 0, rows + size, rows)

    def values(self, rows: npt.NDArray[np.int64]) -> dict[str, Column]:
        """Return the undecoded values of records, by column, in the order of the rows.

        Args:
            rows: Numbers of records, all of which there are.

        Raises:
            InputError: A file is missing or damaged.
        """
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        positions = np.searchsorted(self._ends, ascending, side="right")
        cuts = np.flatnonzero(np.diff(positions)) + 1
        pieces = []
        for piece in np.split(ascending, cuts) if len(rows) else []:
            file, start, begin = self._at(int(piece[0]))
            pieces.append(self._reader.read(file, piece - begin + start))
        return {name: _ordered([p[name] for p in pieces], order) for name in self.columns}

    def raw_records(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Record]]:
        """Return number and undecoded values of records.

        Raises:
            InputError: A file is missing or damaged.
        """
        values = self.values(rows)
        lists = [_as_list(column) for column in values.values()]
        for row, *record in zip(rows.tolist(), *lists, strict=True):
            yield row, dict(zip(self.columns, record, strict=True))

    def finish(self, record: Record, row: int, draw: tuple[int, ...] | None = None) -> Any:
        """Decode and transform a record.

        Args:
            record: Its undecoded values.
            row: Its number, which an error tells the place of.
            draw: What names this pass over the data, such as seed and epoch. A transform with a
                parameter `key` gets it, with the record's place behind, so what it draws does not
                depend on the process that it runs in.

        Raises:
            InputError: A value cannot be decoded.
        """
        for name, decoder in self.decoders.items():
            record[name] = self.decoded(name, decoder, record[name], row)
        if self.transform is None:
            return record
        try:
            if self._takes_key and draw is not None:
                return self.transform(record, key=(*draw, *self._place_key(row)))
            return self.transform(record)
        except BAD_VALUE as exc:
            raise self._unusable("a record that its transforms can use", exc, None, row) from exc

    def decoded(self, name: str, decoder: Decoder, value: Any, row: int) -> Any:
        """Decode one value of a column.

        Raises:
            InputError: It cannot be decoded.
        """
        try:
            return decoder(value)
        except BAD_VALUE as exc:
            raise self._unusable("a value that its decoder can use", exc, name, row) from exc

    def place_of(self, index: int) -> RecordPlace:
        """Return where a record lies.

        Raises:
            IndexError: There is no such record.
        """
        row = int(self.numbers([index])[0])
        file, start, begin = self._at(row)
        return RecordPlace(str(file.place), row - begin + start)

    def _place_key(self, row: int) -> tuple[int, int]:
        file, start, begin = self._at(row)
        # The name and not the path: a dataset may be copied, and shared out in other ways.
        name = f"{file.place.parent.name}/{file.place.name}"
        return zlib.crc32(name.encode("utf-8", "surrogateescape")), row - begin + start

    def _at(self, row: int) -> tuple[Any, int, int]:
        """Return the file of a record, its first row of the share, and that row's number."""
        position = int(np.searchsorted(self._ends, row, side="right"))
        file, start, stop = self._stretches[position]
        return file, start, int(self._ends[position]) - (stop - start)

    def _unusable(
        self, expected: str, cause: BaseException, column: str | None, row: int
    ) -> InputError:
        file, number = self.place_of(row)
        where = f"row {number} of {file}"
        where = f"column {column!r}, {where}" if column else where
        if isinstance(cause, InputError):
            return InputError(cause.expected, f"{cause.received} ({where})", cause.remedy)
        reason = f"{type(cause).__name__}: {cause} ({where})"
        return InputError(expected, reason, "Correct the value, or read with on_error='skip'.")


def read_records(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    decoders: Mapping[str, Decoder | None] | None = None,
    transform: Callable[[Record], Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Records:
    """Open a dataset for random access: `len(records)`, `records[i]`, `records[10:20]`.

    A record costs one short read of its file, not a scan, whatever the size of the dataset.

    Args:
        path: The folder of the dataset, on any file system.
        columns: The columns of a record; all when None.
        decoders: Other decoders for columns; None as a decoder keeps the bytes. Images become
            float32 arrays (channel, height, width) from 0 to 1 by default.
        transform: Applied to each record, a dict from column to value.
        config: `num_shards`, `rank` and `balance`, as in `share_of`.

    Raises:
        InputError: There is no whole dataset at the path, or a column is unknown.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
    """
    say_unused(config or {})
    dataset = open_dataset(path)
    chosen = choose_decoders(dataset.schema, decoders)
    share = share_of(dataset, config)
    return Records(share, columns=columns, decoders=chosen, transform=transform)


def choose_decoders(
    schema: Schema,
    overrides: Mapping[str, Decoder | None] | None = None,
    undecoded: Sequence[str] = (),
) -> dict[str, Decoder]:
    """Return the decoder of each column that has one.

    Args:
        schema: The columns.
        overrides: Decoders by column, instead of the one for its feature type; None for none.
        undecoded: Columns that stay as they are stored.

    Raises:
        InputError: A name is no column.
    """
    defaults: dict[FeatureType, Decoder] = {
        FeatureType.IMAGE: ImageDecoder(),
        FeatureType.NDARRAY: decode_ndarray,
    }
    given = {**dict(overrides or {}), **dict.fromkeys(undecoded)}
    unknown = set(given) - set(schema)
    if unknown:
        raise InputError(f"decoders for {list(schema)}", f"{sorted(unknown)}", "Name a column.")
    chosen = {name: defaults.get(field.feature_type) for name, field in schema.items()}
    return {name: decoder for name, decoder in {**chosen, **given}.items() if decoder}


def _takes_key(transform: Callable[..., Any]) -> bool:
    try:
        return "key" in inspect.signature(transform).parameters
    except (TypeError, ValueError):  # some of those that are not written in Python
        return False


def _ordered(pieces: list[Column], order: npt.NDArray[np.int64]) -> Column:
    """Undo the sorting of the rows."""
    if pieces and all(isinstance(piece, np.ndarray) for piece in pieces):
        joined = np.concatenate(pieces)
        found = np.empty_like(joined)
        found[order] = joined
        return found
    values: list[Any] = [None] * len(order)
    for position, value in zip(order.tolist(), (v for p in pieces for v in p), strict=True):
        values[position] = value
    return values


def _as_list(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column
