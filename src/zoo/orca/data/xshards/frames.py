"""Between Spark DataFrames and shards of pandas DataFrames, as Arrow on the whole way.

What a column becomes in pandas, when `widen` is on:

| column type | dtype | null |
| --- | --- | --- |
| byte, short, int, long | int64 | float64 with NaN |
| float, double, decimal | float64 | NaN |
| boolean | bool | object with None |
| string | object of str | None |
| date, timestamp (wall clock of the session's time zone) | datetime64[ns] | NaT |
| the same, where a value lies outside of datetime64[ns] | object of date or datetime | None |
| binary | object of bytes | None |
| array | object of numpy arrays | None |
| dense ML vector | object of numpy arrays of float64 | None |
| sparse ML vector | object of SparseVector | None |
| struct, map | object of dict | None |

Without `widen` numbers, dates and decimals keep the type that Spark has. Dtypes are those of one
partition: a column of whole numbers is float64 only where a null is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from zoo.orca.data.xshards.frame_schema import arrow_in_schema, columns_of, common_schema
from zoo.orca.data.xshards.jobs import gather, map_shards

__all__ = ["frame_to_rdd", "rdd_to_frame", "table_to_pandas"]

# Arrow crosses the JVM as binary cells of about this size: far from the 2 GiB of a Java array.
_CELL_BYTES = 16 << 20
_BATCH_ROWS = 1 << 16
_ZONE = "spark.sql.session.timeZone"
_CELL = "cell binary"


def frame_to_rdd(frame: DataFrame, *, widen: bool = True) -> RDD[Any]:
    """Turn a Spark DataFrame into an RDD with one pandas DataFrame for each partition.

    Order of partitions and rows stays. A partition without rows gives a DataFrame without rows,
    with the columns and dtypes of the others.

    Args:
        frame: Any DataFrame; names of columns may be anything, even twice the same.
        widen: Make whole numbers int64 and reals float64, as pandas reads them.
    """
    names, kinds = list(frame.columns), [field.dataType for field in frame.schema]
    vectors = frozenset(i for i, kind in enumerate(kinds) if kind.typeName() == "vectorudt")
    zone = frame.sparkSession.conf.get(_ZONE)
    # mapInArrow fails on names with a dot, and select on names that are not unique.
    plain = frame.toDF(*(f"c{i}" for i in range(len(names))))
    schema = to_arrow_schema(plain.schema, timezone=zone)

    def unpack(rows: Iterable[Any]) -> Iterator[pd.DataFrame]:
        batches = (batch for row in rows for batch in _batches(row[0]))
        table = _table(batches)
        yield table_to_pandas(
            schema.empty_table() if table is None else table, names, widen=widen, vectors=vectors
        )

    return plain.mapInArrow(_pack, _CELL).rdd.mapPartitions(unpack)


def _table(batches: Iterable[pa.RecordBatch]) -> pa.Table | None:
    held = list(batches)
    return pa.Table.from_batches(held) if held else None


def _pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for cell in _cells(batches):
        yield pa.RecordBatch.from_pydict({"cell": pa.array([cell], pa.binary())})


def _cells(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Batches as Arrow IPC streams, each far smaller than the 2 GiB that a Java array can hold."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        for part in _cut(batch):
            held.append(part)
            size += part.nbytes
            if size >= _CELL_BYTES:
                yield _ipc(held)
                held, size = [], 0
    if held:
        yield _ipc(held)


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows in pieces of which none is far larger than a cell, unless one row is."""
    if batch.num_rows <= 1 or (batch.nbytes <= _CELL_BYTES and batch.num_rows <= _BATCH_ROWS):
        yield batch
        return
    half = batch.num_rows // 2
    yield from _cut(batch.slice(0, half))
    yield from _cut(batch.slice(half))


def _ipc(batches: list[pa.RecordBatch]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def _batches(cell: bytes | pa.Buffer) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(cell) as reader:
        yield from reader


def rdd_to_frame(rdd: RDD[Any], session: SparkSession) -> DataFrame:
    """Turn an RDD of pandas DataFrames into a Spark DataFrame, without their index.

    One job looks at the types. Columns of whole numbers and of reals become reals, whole columns
    of nulls take the type of the others, and times without a zone are wall clock of the session's.

    Args:
        rdd: The DataFrames; computed twice when Spark does not hold it.
        session: Whose DataFrame it will be.

    Raises:
        InputError: An element is no DataFrame, or columns or types differ.
    """
    found = [columns for part in gather(rdd, columns_of) for columns in part]
    schema = common_schema(found, str(session.conf.get(_ZONE)))
    names = schema.names
    plain = pa.schema([field.with_name(f"c{i}") for i, field in enumerate(schema)])

    def pack(frame: pd.DataFrame) -> list[bytes]:
        table = arrow_in_schema(frame, schema).rename_columns(plain.names)
        return list(_cells(table.combine_chunks().to_batches()))

    def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for cell in batch.column(0):
                yield from _batches(cell.as_buffer())

    cells = map_shards(rdd, pack).flatMap(lambda several: [(cell,) for cell in several])
    frame = session.createDataFrame(cells, _CELL)
    return frame.mapInArrow(unpack, from_arrow_schema(plain)).toDF(*names)


def table_to_pandas(
    table: pa.Table,
    names: list[str],
    *,
    widen: bool = True,
    vectors: frozenset[int] = frozenset(),
) -> pd.DataFrame:
    """Turn an Arrow table of Spark's types into pandas, as the table above says.

    Args:
        table: The rows.
        names: The names that the columns get.
        widen: Make whole numbers int64 and reals float64.
        vectors: Positions of the columns that hold ML vectors.
    """
    columns = {
        i: _vectors(column) if i in vectors else _series(column, widen)
        for i, column in enumerate(table.columns)
    }
    result = pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), copy=False)
    result.columns = pd.Index(names, dtype=object)
    return result


def _series(column: pa.ChunkedArray, widen: bool) -> pd.Series[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _times(column, widen)
    if widen:
        if pa.types.is_integer(kind) and kind != pa.uint64():
            column = column.cast(pa.int64())
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            column = column.cast(pa.float64())
    series: pd.Series[Any] = column.to_pandas(maps_as_pydicts="lossy")
    return series.map(_writable_cell) if pa.types.is_nested(kind) else _writable(series)


def _writable(series: pd.Series[Any]) -> pd.Series[Any]:
    # Of one chunk without nulls pandas gets a view of Arrow's memory, which is read-only.
    values = series.to_numpy(copy=False) if isinstance(series.dtype, np.dtype) else None
    return series if values is None or values.flags.writeable else series.copy()


def _writable_cell(cell: Any) -> Any:
    """A cell of a nested column; arrays in it are views of Arrow's memory, too."""
    if not isinstance(cell, np.ndarray):
        return cell
    own = cell if cell.flags.writeable else cell.copy()
    if own.dtype == object:
        for at, inner in enumerate(own):
            own[at] = _writable_cell(inner)
    return own


def _times(column: pa.ChunkedArray, widen: bool) -> pd.Series[Any]:
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = pc.local_timestamp(column)
    if pa.types.is_date(column.type) and not widen:
        dates: pd.Series[Any] = column.to_pandas()
        return dates
    try:
        return _writable(column.cast(pa.timestamp("ns")).to_pandas())
    except pa.ArrowInvalid:
        return pd.Series(column.to_pylist(), dtype=object)


def _vectors(column: pa.ChunkedArray) -> pd.Series[Any]:
    cells = np.empty(len(column), dtype=object)
    cells[:] = [cell for chunk in column.chunks for cell in _vector_cells(chunk)]
    return pd.Series(cells)


def _vector_cells(chunk: pa.StructArray) -> Iterator[Any]:
    """Dense vectors as views of one array: a Python list for each would take seconds."""
    kinds, _, _, values = chunk.flatten()
    if chunk.null_count or pc.any(pc.equal(kinds, 0)).as_py():
        yield from (None if cell is None else _vector(cell) for cell in chunk.to_pylist())
        return
    flat, ends = values.values.to_numpy().copy(), values.offsets.to_numpy()
    yield from (flat[i:j] for i, j in zip(ends[:-1], ends[1:], strict=True))


def _vector(cell: dict[str, Any]) -> Any:
    if cell["type"] == 0:
        from pyspark.ml.linalg import SparseVector

        return SparseVector(cell["size"], cell["indices"], cell["values"])
    return np.array(cell["values"], dtype=np.float64)
