"""Records become columns: values are read, judged and encoded, a row group at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from zoo.errors import ContractError, InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, Schema, SchemaField
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.ndarray_codec import encode_ndarray
from zoo.orca.data.image.writing.verify import Screening, SizedImage, check_image
from zoo.orca.data.storage import locate

__all__ = [
    "ROW_GROUP_BYTES",
    "ROW_GROUP_ROWS",
    "Record",
    "RowGroup",
    "arrow_schema",
    "is_bytes",
    "row_groups",
    "to_array",
]

Record = Mapping[str, Any]
"""One row: a value for each column of the schema."""

RowGroup = dict[str, list[Any]]
"""Encoded values of some rows, for each column."""

ROW_GROUP_BYTES = 8 * 2**20
"""A row group is closed beyond this size; Spark and our loader read one at a time."""
ROW_GROUP_ROWS = 1024
"""A row group has at most so many rows."""

_VALUE_BYTES = 2**30  # a page holds less than 2 GiB, and a row group is one page of each column
_READ_BYTES = 2**17
_BAD_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError)
# Too many links, too long a name, a socket or a pipe: the file's own fault, too.
_BAD_ERRNO = frozenset((errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV))
# Numbers lie in the file as Spark infers them from Python's, as datasets always had them.
_ARROW_TYPES = {
    DType.STRING: pa.string(),
    DType.BYTES: pa.binary(),
    DType.INT32: pa.int64(),
    DType.UINT8: pa.int64(),
    DType.FLOAT32: pa.float64(),
}
_Encoder = Callable[[Any], Any]


def _is_scalar(field: SchemaField) -> bool:
    return field.feature_type is FeatureType.SCALAR


def is_bytes(field: SchemaField) -> bool:
    """Say whether a column is stored as bytes, plain and with an index of its values."""
    return not _is_scalar(field) or field.dtype is DType.BYTES


def _arrow_type(field: SchemaField) -> pa.DataType:
    return _ARROW_TYPES[field.dtype] if _is_scalar(field) else pa.binary()


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the columns as Arrow has them in the file."""
    return pa.schema([(name, _arrow_type(field)) for name, field in schema.items()])


def row_groups(
    schema: Schema,
    records: Iterable[Record | BadRecord],
    screening: Screening,
    bad: list[BadRecord],
) -> Iterator[RowGroup]:
    """Encode records and cut them where a row group is full.

    Args:
        schema: The columns.
        records: Dicts with the schema's keys, and a `BadRecord` for each that could not be made.
        screening: What is asked of image files, and what becomes of bad ones.
        bad: Takes in the bad ones that are left out.

    Raises:
        ContractError: A record has other keys than the schema.
        InputError: A value cannot be stored, or a file is bad and `on_error` is "fail".
    """
    encoders = [(name, _encoder(field, screening)) for name, field in schema.items()]
    names = schema.keys()
    group: RowGroup = {name: [] for name in schema}
    rows = size = 0
    for record in records:
        row = record if isinstance(record, BadRecord) else _row(record, names, encoders)
        if isinstance(row, BadRecord):
            bad.append(_let_through(row, screening))
            continue
        for column, value in zip(group.values(), row, strict=True):
            column.append(value)
            size += len(value) if isinstance(value, (bytes, str)) else 8
        rows += 1
        if size >= ROW_GROUP_BYTES or rows >= ROW_GROUP_ROWS:
            yield group
            group = {name: [] for name in schema}
            rows = size = 0
    if rows:
        yield group


def _let_through(bad: BadRecord, screening: Screening) -> BadRecord:
    if screening.on_error != "fail":
        return bad
    if bad.error is not None:
        received = bad.error.received
        raise InputError(
            bad.error.expected,
            received if bad.path in received else f"{received} ({bad.path!r})",
            f"{bad.error.remedy} on_error='skip' or 'quarantine' leaves such images out.",
        )
    raise InputError(
        "an image file that can be stored, and read by every host",
        f"{bad.path!r}: {bad.reason}",
        "Remove or replace it; on_error='skip' or 'quarantine' leaves bad files out. "
        "On a cluster, use shared storage.",
    )


def _row(
    record: Record, names: KeysView[str], encoders: Sequence[tuple[str, _Encoder]]
) -> list[Any] | BadRecord:
    if not isinstance(record, Mapping) or record.keys() != names:
        keys = sorted(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
        raise ContractError(
            f"records with the keys of the schema, {sorted(names)}",
            str(keys),
            "Make the records and the schema agree.",
        )
    row = []
    for name, encode in encoders:
        value = encode(record[name])
        if isinstance(value, BadRecord):
            return value
        row.append(value)
    return row


def _encoder(field: SchemaField, screening: Screening) -> _Encoder:
    if field.feature_type is FeatureType.IMAGE:
        return partial(_image, screening)
    if field.feature_type is FeatureType.NDARRAY:
        return encode_ndarray
    return _as_bytes if field.dtype is DType.BYTES else _as_is


def _as_is(value: Any) -> Any:
    return value


def _as_bytes(value: Any) -> Any:
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return value.encode() if isinstance(value, str) else value


def _image(screening: Screening, path: str | os.PathLike[str]) -> bytes | BadRecord:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError("the path of an image file", type(path).__name__, "Give a path as text.")
    try:
        data = _read(path.path if isinstance(path, SizedImage) else path)
    except _BAD_FILE as exc:
        return BadRecord(str(path), getattr(exc, "strerror", None) or str(exc))
    except OSError as exc:
        if exc.errno not in _BAD_ERRNO:
            raise  # of the disk or the network, not of this file
        return BadRecord(str(path), exc.strerror or str(exc))
    if len(data) > _VALUE_BYTES:
        return BadRecord(str(path), f"more than {_VALUE_BYTES} bytes")
    reason = check_image(data, screening.verify, screening.max_pixels)
    if reason is not None:
        return BadRecord(str(path), reason)
    # Without a look at the header nobody knows the size.
    known = isinstance(path, SizedImage) and screening.verify != "none"
    error = path.misfit(data) if known else None  # type: ignore[union-attr] # mypy forgets why
    return data if error is None else BadRecord(str(path), str(error), error)


def _read(path: str | os.PathLike[str]) -> bytes:
    place = path if isinstance(path, str) and path.startswith("/") else locate(path)
    if not isinstance(place, (str, Path)):
        with place.open("rb") as stream:
            return bytes(stream.read(_VALUE_BYTES + 1))
    # Half the time of Path.read_bytes, which counts for small files. A pipe must not block.
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read_all(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    data = os.read(descriptor, _READ_BYTES)
    more = os.read(descriptor, _READ_BYTES) if data else b""
    if not more:
        return data
    parts, size = [data, more], len(data) + len(more)
    while size <= _VALUE_BYTES and (more := os.read(descriptor, _READ_BYTES)):
        parts.append(more)
        size += len(more)
    return b"".join(parts)


def to_array(name: str, field: SchemaField, values: Sequence[Any]) -> pa.Array:
    """Return a column's encoded values as Arrow.

    Raises:
        InputError: A value does not fit the column's type.
    """
    kind = _arrow_type(field)
    try:
        # Arrow would cut 1.5 down to 1 without a word.
        whole = pa.types.is_integer(kind)
        return pa.array([_as_int(value) for value in values] if whole else values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as exc:
        raise InputError(
            f"values of {field.dtype} in column {name!r}",
            f"values that do not fit ({exc})",
            "Correct the values, or the column's SchemaField.",
        ) from exc


def _as_int(value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    number = int(value)
    if number != value:
        raise ValueError(f"{value!r} is no whole number")
    return number
