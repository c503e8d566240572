"""Records become one parquet file, a bounded stretch of them in memory at a time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import ContractError, InputError
from zoo.orca.data.image.ndarray_codec import encode_ndarray
from zoo.orca.data.image.schema import DType, FeatureType, Schema, SchemaField
from zoo.orca.data.storage import local_path

__all__ = ["ROW_GROUP_BYTES", "Record", "check_block_size", "write_chunk"]

Record = Mapping[str, Any]
"""One row: a value for each column of the schema."""

ROW_GROUP_BYTES = 8 * 2**20
"""A row group is closed beyond this size; Spark and our loader read one at a time."""

_FILE_NAME = "part-00000.parquet"
# Numbers lie in the file as Spark infers them from Python's, as datasets always had them.
_ARROW_TYPES = {
    DType.STRING: pa.string(),
    DType.BYTES: pa.binary(),
    DType.INT32: pa.int64(),
    DType.UINT8: pa.int64(),
    DType.FLOAT32: pa.float64(),
}


def check_block_size(block_size: int) -> None:
    """Refuse a number of records per chunk that is not a positive int.

    Raises:
        InputError: It is not.
    """
    if not isinstance(block_size, int) or block_size < 1:
        raise InputError("block_size as a positive int", repr(block_size), "Give rows per chunk.")


def write_chunk(folder: Path, schema: Schema, records: Iterable[Record]) -> int:
    """Write records as the one file of a chunk folder; return how many there were.

    The file gets its name when it is whole, so a task that Spark runs twice does no harm. Only the
    chunk's own folder is made: a missing parent means that the write has failed elsewhere.

    Raises:
        ContractError: A record has other keys than the schema.
        InputError: A value cannot be stored.
    """
    folder.mkdir(exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex}.parquet"
    rows = 0
    try:
        with pq.ParquetWriter(draft, _arrow_schema(schema), **_options(schema)) as writer:
            for stretch in _stretches(schema, records):
                writer.write_table(_table(schema, stretch))
                rows += len(stretch)
        draft.rename(folder / _FILE_NAME)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return rows


def _options(schema: Schema) -> dict[str, Any]:
    scalars = [name for name, field in schema.items() if _is_scalar(field)]
    # Image files and archives are compressed already: a codec costs time and saves nothing, and a
    # dictionary or a minimum of them is worse than useless.
    return {
        "compression": {name: "SNAPPY" if name in scalars else "NONE" for name in schema},
        "use_dictionary": scalars,
        "write_statistics": scalars,
    }


def _is_scalar(field: SchemaField) -> bool:
    return field.feature_type is FeatureType.SCALAR


def _arrow_type(field: SchemaField) -> pa.DataType:
    return _ARROW_TYPES[field.dtype] if _is_scalar(field) else pa.binary()


def _arrow_schema(schema: Schema) -> pa.Schema:
    return pa.schema([(name, _arrow_type(field)) for name, field in schema.items()])


def _stretches(schema: Schema, records: Iterable[Record]) -> Iterator[list[tuple[Any, ...]]]:
    """Encode records and cut them where a row group is full."""
    encoders = [(name, _encoder(field)) for name, field in schema.items()]
    stretch: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        _check_keys(schema, record)
        row = tuple(encode(record[name]) for name, encode in encoders)
        size += sum(len(value) if isinstance(value, (bytes, str)) else 8 for value in row)
        stretch.append(row)
        if size >= ROW_GROUP_BYTES:
            yield stretch
            stretch, size = [], 0
    if stretch:
        yield stretch


def _check_keys(schema: Schema, record: Record) -> None:
    if not isinstance(record, Mapping) or record.keys() != schema.keys():
        keys = sorted(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
        raise ContractError(
            f"records with the keys of the schema, {sorted(schema)}",
            str(keys),
            "Make the records and the schema agree.",
        )


def _encoder(field: SchemaField) -> Callable[[Any], Any]:
    if field.feature_type is FeatureType.IMAGE:
        return _read_image
    if field.feature_type is FeatureType.NDARRAY:
        return encode_ndarray
    return _as_is


def _as_is(value: Any) -> Any:
    return value


def _read_image(path: str | os.PathLike[str]) -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError("the path of an image file", type(path).__name__, "Give a path as text.")
    file = local_path(path)
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise InputError(
            "an image file that every host can read",
            f"{str(file)!r} ({exc.strerror})",
            "Check the path; on a cluster, use shared storage.",
        ) from exc
    if not data:
        raise InputError("an image file", f"{str(file)!r} with zero bytes", "Remove or replace it.")
    return data


def _table(schema: Schema, stretch: list[tuple[Any, ...]]) -> pa.Table:
    values = zip(*stretch, strict=True)
    columns = [
        _column(name, field, column)
        for (name, field), column in zip(schema.items(), values, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=_arrow_schema(schema))


def _column(name: str, field: SchemaField, values: tuple[Any, ...]) -> pa.Array:
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
    if value is None:
        return None
    number = int(value)
    if number != value:
        raise ValueError(f"{value!r} is no whole number")
    return number
