"""Recognise what the user passed, once, at the edge: from here on everything is a Spark DataFrame.

A pandas DataFrame or an Arrow table becomes a Spark DataFrame with its rows in order, and results
go back to the kind that came in. pandas takes missing values for nulls, and so do we.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_type

from zoo.errors import ColumnError, ContractError
from zoo.orca.data.tensors.decode import CellError, decode_tensor
from zoo.orca.data.tensors.plan import ColumnPlan, TensorSpec
from zoo.orca.data.tensors.plan_columns import quoted

__all__ = ["Frame", "arrow_columns", "as_frame", "pandas_to_arrow", "select_columns"]

_KINDS = "a Spark DataFrame, a pandas DataFrame, a pyarrow.Table or a creator function"
_PARTITION_ROWS, _PARTITION_BYTES = 10_000, 4 << 20
# Spark knows no unsigned numbers and no half precision.
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}


@dataclass(frozen=True)
class Frame(ABC):
    """A frame in the form that everything works on.

    Attributes:
        spark: The rows, in the order in which they came.
    """

    spark: DataFrame

    @abstractmethod
    def restore(self, result: DataFrame, added: Sequence[str] = ("prediction",)) -> Any:
        """Give a result back as the kind of frame that came in.

        Args:
            result: `spark` with more columns, its rows and their order unchanged.
            added: The names of those columns.
        """


class _SparkFrame(Frame):
    def restore(self, result: DataFrame, added: Sequence[str] = ("prediction",)) -> DataFrame:
        return result


@dataclass(frozen=True)
class _ArrowFrame(Frame):
    table: pa.Table

    def restore(self, result: DataFrame, added: Sequence[str] = ("prediction",)) -> pa.Table:
        table = self.table
        for name, column in _collect(result, added).items():
            plain = _without_vectors(column)
            at = table.schema.get_field_index(name)
            table = (
                table.append_column(name, plain) if at < 0 else table.set_column(at, name, plain)
            )
        return table


@dataclass(frozen=True)
class _PandasFrame(Frame):
    pandas: pd.DataFrame

    def restore(self, result: DataFrame, added: Sequence[str] = ("prediction",)) -> pd.DataFrame:
        columns = {
            name: pd.Series(_cells(column), index=self.pandas.index)
            for name, column in _collect(result, added).items()
        }
        return self.pandas.assign(**columns)


def as_frame(
    data: Any,
    session: SparkSession,
    used: Collection[str] | None = None,
    *,
    streams: bool = False,
) -> Frame:
    """Recognise a frame.

    Args:
        data: A Spark DataFrame, a pandas DataFrame or a `pyarrow.Table`.
        session: Where data that is not in Spark goes.
        used: The columns that will be looked at; None for all. Of the others only the names go
            to Spark, whatever they hold.
        streams: Whether a streaming DataFrame will do.

    Raises:
        ContractError: It is none of these.
        ColumnError: A column cannot become a Spark column.
    """
    if isinstance(data, DataFrame):
        _require_classic(data)
        if data.isStreaming and not streams:
            raise ContractError(
                "a DataFrame of rows that are there",
                "a streaming DataFrame",
                "Work on each batch, in a function that writeStream.foreachBatch calls.",
            )
        return _SparkFrame(data)
    if isinstance(data, pd.DataFrame):
        return _PandasFrame(_to_spark(pandas_to_arrow(data, used), session), data)
    if isinstance(data, pa.Table):
        return _ArrowFrame(_to_spark(_only(data, used), session), data)
    kind = type(data)
    remedies = {
        "pyspark.pandas": "Pass data.to_spark().",
        "polars": "Pass data.to_arrow().",
        "pyarrow": "Pass pyarrow.Table.from_batches([data]).",
    }
    remedy = next((r for m, r in remedies.items() if f"{kind.__module__}.".startswith(f"{m}.")), "")
    raise ContractError(
        _KINDS,
        f"{kind.__module__}.{kind.__qualname__}",
        remedy or "Convert the data to one of them.",
    )


def select_columns(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """These columns under plain names: `mapInArrow` fails on names with a dot or a backtick."""
    return frame.selectExpr(*(f"{quoted(name)} AS c{i}" for i, name in enumerate(names)))


def _require_classic(frame: DataFrame) -> None:
    if type(frame).__module__.startswith("pyspark.sql.connect"):
        raise ContractError(
            "a DataFrame of a classic Spark session",
            "one of Spark Connect",
            "Start Spark with init_orca_context() or SparkSession.builder.master(...) instead of "
            "remote(...): Zoo's tasks need the SparkContext.",
        )


def pandas_to_arrow(data: pd.DataFrame, used: Collection[str] | None = None) -> pa.Table:
    """The columns of a pandas DataFrame, without its index.

    Cells may hold lists or numpy arrays of numbers.

    Args:
        data: The DataFrame.
        used: The columns whose cells are wanted, the others are all nulls; None for all.

    Raises:
        ColumnError: A column holds things that have no common type.
    """
    names = [str(label) for label in data.columns]
    columns = [
        _column(name, data.iloc[:, i]) if used is None or name in used else pa.nulls(len(data))
        for i, name in enumerate(names)
    ]
    return pa.Table.from_arrays(columns, names=names)


def arrow_columns(data: pd.DataFrame) -> pa.Table:
    """The columns of a pandas DataFrame in types that Spark has.

    Raises:
        ColumnError: A column holds things that have no common type, or one that Spark has not.
    """
    return _spark_table(pandas_to_arrow(data))


def _column(name: str, series: pd.Series[Any]) -> pa.Array:
    if series.dtype == object and (stacked := _stacked(series)) is not None:
        return stacked
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        kinds = sorted({type(cell).__name__ for cell in series}) if series.dtype == object else []
        shown = ", ".join(kinds[:5]) or str(series.dtype)
        raise ColumnError(
            f"cells of one type in column '{name}'",
            f"{shown} ({str(exc).splitlines()[0]})",
            f"Convert the column, with data['{name}'].astype(...) for example, or drop it.",
        ) from None


def _only(table: pa.Table, used: Collection[str] | None) -> pa.Table:
    """The table with nulls in columns that nobody looks at."""
    columns = [
        column if used is None or name in used else pa.chunked_array([pa.nulls(len(column))])
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _stacked(series: pd.Series[Any]) -> pa.Array | None:
    """Numpy arrays of one shape as nested lists; None when the cells are anything else."""
    cells = series.to_list()
    first = cells[0] if cells else None
    if not isinstance(first, np.ndarray) or not first.ndim or not first.size:
        return None
    if any(
        not isinstance(c, np.ndarray) or (c.shape, c.dtype) != (first.shape, first.dtype)
        for c in cells
    ):
        return None
    array = pa.array(np.stack(cells).reshape(-1))
    for width in reversed(first.shape):
        array = pa.FixedSizeListArray.from_arrays(array, width)
    return array


def _spark_table(table: pa.Table) -> pa.Table:
    names = table.column_names
    columns = [_spark_column(n, c) for n, c in zip(names, table.columns, strict=True)]
    return pa.Table.from_arrays(columns, names=names)


def _to_spark(table: pa.Table, session: SparkSession) -> DataFrame:
    plain = _spark_table(table).combine_chunks()
    wanted = max(-(-plain.num_rows // _PARTITION_ROWS), plain.nbytes // _PARTITION_BYTES, 1)
    # Neighbours are joined, so the order stays.
    return session.createDataFrame(plain).coalesce(
        min(wanted, session.sparkContext.defaultParallelism)
    )


def _spark_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _spark_type(column.type)
    try:
        from_arrow_type(kind)
        return column.cast(kind)
    except (pa.ArrowException, PySparkException) as exc:
        raise ColumnError(
            f"column '{name}' in a type that Spark has",
            f"{column.type} ({str(exc).splitlines()[0]})",
            "Cast or drop the column.",
        ) from None


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _spark_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    return _WIDER.get(kind, kind)


def _collect(result: DataFrame, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    table = result.select(*(_plain(result, name) for name in names)).toArrow()
    return dict(zip(names, table.columns, strict=True))


def _plain(result: DataFrame, name: str) -> Column:
    """A column; ML vectors as arrays, as Arrow has no vectors that are null."""
    column = result[quoted(name)]
    if result.schema[name].dataType.typeName() != "vectorudt":
        return column
    from pyspark.ml.functions import vector_to_array

    return F.when(column.isNotNull(), vector_to_array(column)).alias(name)


def _is_vector(kind: pa.DataType) -> bool:
    names = [kind.field(i).name for i in range(kind.num_fields)]
    return names == ["type", "size", "indices", "values"]


def _holds_vectors(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind)) and _is_vector(kind.value_type)


def _without_vectors(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """ML vectors, which predictions have in their dense form, as lists of numbers."""
    if _is_vector(column.type):
        chunks = [chunk.field("values") for chunk in column.chunks]
        return pa.chunked_array(chunks, type=column.type.field("values").type)
    if _holds_vectors(column.type):
        kind = pa.list_(column.type.value_type.field("values").type)
        chunks = [
            pa.ListArray.from_arrays(chunk.offsets, chunk.values.field("values")).cast(kind)
            for chunk in column.chunks
        ]
        return pa.chunked_array(chunks, type=kind)
    return column


def _cells(column: pa.ChunkedArray) -> Any:
    """Numbers as a numpy array, several to a row as a list of arrays."""
    column = _without_vectors(column)
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    spec = TensorSpec((ColumnPlan("cells", "array", None),), None, None)
    try:
        return [row for c in column.chunks if len(c) for row in decode_tensor(spec, [c])]
    except CellError:
        return column.to_pylist()
