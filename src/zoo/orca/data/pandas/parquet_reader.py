"""Parquet through Arrow, for files with types or packings that Spark's reader does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
    """Read files with Arrow, in their order: small ones together, large ones by row groups.

    Args:
        files: The files; all tasks have to reach them.
        columns: Which columns, in which order; None for all.

    Raises:
        InputError: A file is damaged, files do not agree, or a column is not there.
    """
    there, schema = _united(files, columns)
    chosen = there if columns is None else list(columns)
    missing = [name for name in chosen if name not in there]
    if missing or not chosen:
        raise InputError(
            f"columns among {', '.join(there)}",
            ", ".join(map(str, missing)) or "none",
            "Check their names.",
        )
    sizes = [int(file.stat().st_size) for file in files]
    target, open_cost = task_bytes(sizes)
    tasks: list[list[_Piece]] = []
    for group in group_files(sizes, target, open_cost):
        if len(group) == 1 and sizes[group.start] > target:
            tasks += [[piece] for piece in _pieces(str(files[group.start]), target)]
        else:
            tasks.append([_Piece(str(files[at])) for at in group])
    rdd = active_session().sparkContext.parallelize(tasks, len(tasks))
    return map_shards(rdd, _read, pa.schema([schema.field(name) for name in chosen]))


class _Piece(NamedTuple):
    """A file, or some of its row groups."""

    file: str
    row_groups: tuple[int, ...] | None = None


def _pieces(file: str, target: int) -> Iterator[_Piece]:
    """Neighbouring row groups of a file, about as many as a task takes."""
    footer = footer_of(locate(file))
    held: list[int] = []
    size = 0
    for number in range(footer.num_row_groups):
        length = footer.row_group(number).total_byte_size
        if held and size + length > target:
            yield _Piece(file, tuple(held))
            held, size = [], 0
        held.append(number)
        size += length
    yield _Piece(file, tuple(held))


def _united(files: Sequence[Any], columns: Sequence[str] | None) -> tuple[list[str], pa.Schema]:
    """The names in all files, and the wanted columns.

    Numbers of two sizes become the larger, and nulls anything.
    """
    names: dict[str, None] = {}
    whole: pa.Schema | None = None
    for file in files:
        schema = footer_of(locate(str(file))).schema.to_arrow_schema()
        if len(set(schema.names)) < len(schema.names):
            twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
            raise InputError("names that differ", f"{twice} twice in {file}", "Rename them.")
        names.update(dict.fromkeys(schema.names))
        wanted = [field for field in schema if columns is None or field.name in columns]
        plain = pa.schema([field.with_type(_plain(field.type)) for field in wanted])
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
    return list(names), whole


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a type is without what only Arrow makes of it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.float32() if pa.types.is_float16(kind) else kind


def _read(pieces: Sequence[_Piece], schema: pa.Schema) -> Any:
    table = pa.concat_tables([_table_of(piece, schema) for piece in pieces])
    try:
        return table_to_pandas(table, schema.names)
    except pa.ArrowException as exc:
        raise InputError(
            "values that pandas can hold",
            f"others in {', '.join(piece.file for piece in pieces)} ({exc})",
            "Leave the column out, with columns=[...].",
        ) from exc


def _table_of(piece: _Piece, schema: pa.Schema) -> pa.Table:
    try:
        with locate(piece.file).open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            there = set(parquet.schema_arrow.names)
            # To Arrow a dot leads into a struct.
            dots = any("." in name for name in there)
            wanted = None if dots else [name for name in schema.names if name in there]
            groups = piece.row_groups
            numbers = range(parquet.num_row_groups) if groups is None else groups
            table = parquet.read_row_groups(list(numbers), columns=wanted)
    except (pa.ArrowException, OSError) as exc:
        raise damaged(piece.file, str(exc)) from exc
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
