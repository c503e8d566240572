"""Parquet through Arrow, for files with types or packings that Spark's reader does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import RDD

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.pandas.ordered_scan import group_files, task_bytes
from zoo.orca.data.pandas.parquet_footers import damaged, footer_of
from zoo.orca.data.storage import locate
from zoo.orca.data.xshards.frames import table_to_pandas
from zoo.orca.data.xshards.jobs import map_shards

__all__ = ["arrow_shards"]


def arrow_shards(files: Sequence[Any], columns: Sequence[str] | None) -> RDD[Any]:
    """Read files with Arrow, in their order: small ones together, large ones by themselves.

    Args:
        files: The files; all tasks have to reach them.
        columns: Which columns, in which order; None for all.

    Raises:
        InputError: A file is damaged, files do not agree, or a column is not there.
    """
    schema = _united(files)
    chosen = list(schema.names) if columns is None else list(columns)
    missing = [name for name in chosen if name not in schema.names]
    if missing or not chosen:
        raise InputError(
            f"columns among {', '.join(schema.names)}",
            ", ".join(map(str, missing)) or "none",
            "Check their names.",
        )
    sizes = [int(file.stat().st_size) for file in files]
    groups = [[str(files[at]) for at in group] for group in group_files(sizes, *task_bytes(sizes))]
    rdd = active_session().sparkContext.parallelize(groups, len(groups))
    return map_shards(rdd, _read_files, pa.schema([schema.field(name) for name in chosen]))


def _united(files: Sequence[Any]) -> pa.Schema:
    """The columns of all files; numbers of two sizes become the larger, nulls anything."""
    whole: pa.Schema | None = None
    for file in files:
        schema = footer_of(locate(str(file))).schema.to_arrow_schema()
        if len(set(schema.names)) < len(schema.names):
            twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
            raise InputError("names that differ", f"{twice} twice in {file}", "Rename them.")
        plain = pa.schema([field.with_type(_plain(field.type)) for field in schema])
        try:
            both = [plain] if whole is None else [whole, plain]
            whole = pa.unify_schemas(both, promote_options="permissive")
        except pa.ArrowException as exc:
            raise InputError(
                f"columns of one type in all files, as in {files[0]}",
                f"another in {file} ({exc})",
                "Read files of one kind at a time.",
            ) from exc
    assert whole is not None
    return whole


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a type is without what only Arrow makes of it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.float32() if pa.types.is_float16(kind) else kind


def _read_files(files: Sequence[str], schema: pa.Schema) -> Any:
    tables = [_table_of(file, schema) for file in files]
    return table_to_pandas(pa.concat_tables(tables), schema.names)


def _table_of(file: str, schema: pa.Schema) -> pa.Table:
    try:
        with locate(file).open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            there = set(parquet.schema_arrow.names)
            # To Arrow a dot leads into a struct.
            dots = any("." in name for name in there)
            table = parquet.read(None if dots else [n for n in schema.names if n in there])
    except (pa.ArrowException, OSError) as exc:
        raise damaged(file, str(exc)) from exc
    columns = [
        _cast(table.column(field.name), field.type)
        if field.name in there
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        column = pa.chunked_array(storage, column.type.storage_type)
    return column.cast(kind)
