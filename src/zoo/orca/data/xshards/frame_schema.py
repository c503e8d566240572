"""The one schema of many pandas DataFrames: what each knows of its columns, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoo.errors import InputError
from zoo.orca.data.frame import pandas_to_arrow

__all__ = ["FrameColumns", "arrow_in_schema", "columns_of", "common_schema", "spark_type"]

# Spark knows no unsigned numbers, no half precision, and one form of text, bytes and dates.
_PLAIN = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


@dataclass(frozen=True)
class FrameColumns:
    """What one DataFrame says of its columns.

    Attributes:
        names: The labels, as text.
        types: A type of Spark for each column.
        known: Whether the column has a value in it; if not, its type is a guess.
    """

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    known: tuple[bool, ...]


def spark_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type in which Spark takes values of another one."""
    if pa.types.is_dictionary(kind):
        return spark_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(spark_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, spark_type(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(spark_type(kind.key_type), spark_type(kind.item_type))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return _PLAIN.get(kind, kind)


def columns_of(frame: Any) -> FrameColumns:
    """What a shard says of its columns.

    Raises:
        InputError: It is no DataFrame.
        ColumnError: A column holds things that have no common type.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            "shards that are DataFrames",
            f"{type(frame).__module__}.{type(frame).__qualname__}",
            "Use transform_shard to make DataFrames of them.",
        )
    table = pandas_to_arrow(frame)
    return FrameColumns(
        tuple(table.column_names),
        tuple(spark_type(kind) for kind in table.schema.types),
        tuple(column.null_count < len(column) for column in table.columns),
    )


def common_schema(shards: Sequence[FrameColumns], zone: str) -> pa.Schema:
    """The schema that holds the rows of all shards.

    Whole numbers and reals become reals, and a column without values takes the type of others.
    Times without a zone are wall clock of the session's.

    Args:
        shards: What each says; those without columns say nothing.
        zone: The time zone of the session.

    Raises:
        InputError: There are no columns, shards differ in their columns, or the types of a column
            have nothing in common; it names the shard and the columns.
    """
    numbered = [(number, shard) for number, shard in enumerate(shards) if shard.names]
    if not numbered:
        raise InputError(
            "shards with columns", f"{len(shards)} shards without any", "Check what they hold."
        )
    first, model = numbered[0]
    for number, shard in numbered:
        if sorted(shard.names) != sorted(model.names):
            raise _different(number, shard, first, model)
    fields = [_field(at, name, numbered, zone) for at, name in enumerate(model.names)]
    return pa.schema(fields)


def _different(number: int, shard: FrameColumns, first: int, model: FrameColumns) -> InputError:
    missing = sorted(set(model.names) - set(shard.names))
    added = sorted(set(shard.names) - set(model.names))
    lacks = f", which lacks {missing}" if missing else ""
    return InputError(
        f"the columns of shard {first} in all shards ({', '.join(model.names)})",
        f"{', '.join(shard.names)} in shard {number}{lacks}{f' and adds {added}' if added else ''}",
        "Use transform_shard to bring them to the same columns.",
    )


def _field(
    position: int, name: str, shards: Sequence[tuple[int, FrameColumns]], zone: str
) -> pa.Field:
    known: list[tuple[int, pa.DataType]] = []
    guessed: list[tuple[int, pa.DataType]] = []
    for number, shard in shards:
        same = shard.names[position] == name  # names may be there twice
        at = position if same else shard.names.index(name)
        (known if shard.known[at] else guessed).append((number, shard.types[at]))
    kind = pa.null()
    for number, other in known or guessed:
        kind = _joined(name, kind, other, number)
    if pa.types.is_null(kind):
        kind = pa.string()
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", zone)
    return pa.field(name, kind)


def _joined(name: str, one: pa.DataType, other: pa.DataType, number: int) -> pa.DataType:
    if one == other:
        return one
    if pa.types.is_integer(one) and pa.types.is_floating(other):
        one, other = other, one
    if pa.types.is_floating(one) and pa.types.is_integer(other):
        return pa.float64()
    try:
        schemas = [pa.schema([(name, kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        raise InputError(
            f"one type in column '{name}' of all shards",
            f"{other} in shard {number}, and {one} in others",
            "Use transform_shard and astype to bring the column to one type.",
        ) from None


def arrow_in_schema(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """The rows of a DataFrame in a schema that `common_schema` found.

    Raises:
        ColumnError: A column holds things that have no common type.
        InputError: A value does not fit into the type of its column.
    """
    table = pandas_to_arrow(frame)
    if not table.num_columns:
        return schema.empty_table()
    if table.column_names != schema.names:
        table = table.select(schema.names)
    columns = [_cast(column, field) for column, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), field.type)])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        # Spark counts microseconds; a time that the zone skips or repeats is the earlier one.
        plain = column.cast(pa.timestamp("us"), safe=False)
        return pc.assume_timezone(
            plain, field.type.tz, ambiguous="earliest", nonexistent="earliest"
        )
    rounded = pa.types.is_temporal(column.type) or pa.types.is_floating(field.type)
    try:
        return column.cast(field.type, safe=not rounded)
    except pa.ArrowException as exc:
        raise InputError(
            f"values of column '{field.name}' that fit into {field.type}",
            str(exc).splitlines()[0],
            "Use transform_shard and astype to change the column.",
        ) from None
