"""The rows of XShards: of dicts of arrays, or of pandas DataFrames.

The tensors are planned from the first shard that has rows; the tasks compare all others with it.

How arrays of a dict become tensors: floats become the float type of the plan, booleans too, whole
numbers become int64, single bytes (pixels) stay as they are. Texts are arrays of numpy's strings,
or of objects that are str or bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import RDD, SparkContext
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type

from zoo.errors import ColumnError, ContractError, InputError
from zoo.orca.data.frame import arrow_columns
from zoo.orca.data.tensors.flaws import (
    Flaw,
    add_flaw,
    bad_rows,
    count_infinite,
    count_weightless,
)
from zoo.orca.data.tensors.plan import TEXT, ColumnPlan, Columns, TensorPlan, TensorSpec
from zoo.orca.data.tensors.rows import ArrowPieces, Job, Pieces, Rows, Task
from zoo.orca.data.tensors.spark_rows import SparkJob, SparkRows, task_place
from zoo.orca.data.xshards.jobs import attempt, gather, map_shards, run_job, said_by, spread_evenly

__all__ = [
    "ArrayPieces",
    "ShardRows",
    "dict_arrays",
    "flat_names",
    "plan_dicts",
    "shard_length",
    "shard_rows",
]

_BATCH_ROWS = 10_000
_TEXTS = "USO"
_KINDS = "shards that are dicts of arrays or pandas DataFrames"


@dataclass(frozen=True)
class ShardRows(SparkRows):
    """The rows of XShards.

    Attributes:
        rdd: Its elements are the shards.
        schema: Of shards that are DataFrames: all columns, with the types of those that are
            used. None for dicts.
    """

    rdd: RDD[Any]
    schema: pa.Schema | None = None

    @property
    def context(self) -> SparkContext:
        """The Spark of the shards."""
        return self.rdd.context

    @property
    def spark_schema(self) -> T.StructType:
        """The schema that a Spark DataFrame of these DataFrames has."""
        fields = [T.StructField(f.name, from_arrow_type(f.type)) for f in self.schema or ()]
        return T.StructType(fields)

    @property
    def read(self) -> Callable[[TensorPlan, Iterable[Any]], Pieces]:
        """A function for the workers, from plan and shards to pieces."""
        return ArrayPieces if self.schema is None else partial(_frame_pieces, self.schema)

    def job(self, plan: TensorPlan, task: Task, schema: str) -> Job:
        """See `Rows`."""
        read = self.read

        def work(shards: Iterable[Any]) -> Iterator[dict[str, Any]]:
            for batch in task(read(plan, shards), task_place()):
                yield from batch.to_pylist()

        return _ShardJob(attempt(self.rdd, work))

    def first(self, count: int) -> Rows:
        """See `Rows`."""
        # Shards of a partition are cut to what the partitions before it leave.
        rows = [sum(lengths) for lengths in gather(self.rdd, shard_length)]
        left = [max(0, count - before) for before in [0, *itertools.accumulate(rows)]]

        def cut(index: int, shards: Iterable[Any]) -> Iterator[Any]:
            room = left[index]
            for shard in shards:
                if room > 0:
                    yield _head(shard, room)
                    room -= shard_length(shard)

        return replace(self, rdd=self.rdd.mapPartitionsWithIndex(cut))

    def spread(self, partitions: int, columns: Sequence[str]) -> Rows:
        """See `Rows`; whole shards move."""
        sizes = [len(lengths) for lengths in gather(self.rdd, shard_length)]
        return replace(self, rdd=spread_evenly(self.rdd, sizes, partitions))

    def held_as(self) -> object | None:
        """See `Rows`."""
        return self.rdd.id() if self.rdd.is_cached else None

    def same(self, other: Rows) -> bool:
        """See `Rows`."""
        return isinstance(other, ShardRows) and self.rdd.id() == other.rdd.id()


@dataclass(frozen=True)
class _ShardJob(SparkJob):
    """A job over shards; errors of its tasks arrive as themselves."""

    def run(
        self, word: str = "", only: Collection[int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        said: Any = run_job(self.rdd.ctx, super().run, word, only)
        return [row for rows in said_by(said) for row in rows]


def shard_rows(rdd: RDD[Any], columns: Sequence[Columns | None]) -> tuple[ShardRows, Any]:
    """Recognise what the shards are, by the first one that has rows.

    Args:
        rdd: The shards.
        columns: `feature_cols` and `label_cols`, for DataFrames.

    Returns:
        The rows, and for dicts the layout that `plan_dicts` needs; None for DataFrames.

    Raises:
        ContractError: Shards are neither dicts nor DataFrames, or lack the key `x`.
        InputError: There are no rows, or an array is none.
        ColumnError: A column that is used holds things of no common type.
    """
    names = set(flat_names(columns))
    described = map_shards(rdd, _describe, names).filter(lambda found: found[0] != 0)
    found = run_job(rdd.ctx, described.take, 1)
    if not found:
        raise InputError(
            "rows to work on", "shards with zero rows", "Check what made or filtered the shards."
        )
    ((_, facts),) = found
    if isinstance(facts, InputError):
        raise facts
    if isinstance(facts, pa.Schema):
        return ShardRows(rdd, facts), None
    return ShardRows(rdd), facts


def plan_dicts(
    facts: Any,
    float_dtype: str,
    *,
    need_labels: bool,
    weight: str | None = None,
    text: bool = False,
) -> TensorPlan:
    """The tensors of dicts of arrays; what rows weigh is no part of it.

    Args:
        facts: From `shard_rows`.
        float_dtype: What floating-point arrays become.
        need_labels: Whether `y` must be there.
        weight: The key of an array that must be there, too.
        text: Arrays of texts may be features.

    Raises:
        ContractError: `y` is missing, or the weights.
        ColumnError: There are texts elsewhere.
    """
    features, labels, others = facts
    if weight is not None and weight not in others:
        raise ContractError(
            f"shards with the weights of their rows under {weight!r}",
            f"the other keys {others}",
            "Name the key of an array in sample_weight_col.",
        )
    if need_labels and labels is None:
        raise ContractError(
            "shards with the arrays that the loss compares with (key y should in each shard)",
            "dicts without y",
            'Give each shard {"x": ..., "y": ...}.',
        )

    def spec(name: str, dtype: str, shape: tuple[int, ...]) -> TensorSpec:
        wanted = _tensor_dtype(np.dtype(dtype), float_dtype)
        return TensorSpec((ColumnPlan(name, "ndarray", wanted),), wanted, shape)

    labels = labels if need_labels else None
    for name, dtype, _ in [*(() if text else features), *(labels or ())]:
        if dtype == TEXT:
            raise ColumnError(
                f"{name} as an array of numbers",
                "texts",
                "Turn them into numbers in transform_shard, or make a frame of them, for encode of "
                "zoo.orca.learn.preprocess. Keras on TensorFlow takes texts as features.",
            )
    planned = [[spec(*one) for one in part or ()] for part in (features, labels)]
    return TensorPlan(tuple(planned[0]), tuple(planned[1]) if need_labels else ())


class ArrayPieces:
    """The pieces of dicts of arrays.

    Args:
        plan: From `plan_dicts`.
        shards: Of one partition.

    Attributes:
        tensors: Those of the plan.
        flaws: What was found so far.
        remarks: What was found so far.
    """

    def __init__(self, plan: TensorPlan, shards: Iterable[Any]) -> None:
        self.tensors = list(plan.tensors)
        self.flaws: dict[tuple[str, str], Flaw] = {}
        self.remarks: dict[tuple[str, str], Flaw] = {}
        self._cuts, self._shards = (len(plan.features), len(plan.labels)), shards
        self._weight = plan.weight

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for shard in self._shards:
            arrays = self._arrays(shard)
            if arrays and not self.flaws:
                yield arrays

    def _arrays(self, shard: Any) -> list[np.ndarray]:
        try:
            parts = dict_arrays(shard)
            given = [a for part, n in zip(parts, self._cuts, strict=True) if n for _, a in part]
        except InputError as exc:
            self._flaw("x", "layout", 1, exc.received)
            return []
        if len(given) != sum(self._cuts):
            self._flaw("x", "layout", 1, f"{len(given)} arrays and not {sum(self._cuts)}")
            return []
        if not len(given[0]):
            return []
        found = zip(self.tensors, given, strict=self._weight is None)
        cast = [self._cast(k, spec, array) for k, (spec, array) in enumerate(found)]
        if self._weight is not None:
            cast.append(self._weights(self._weight, shard, parts[1], len(given[0])))
        return cast

    def _weights(
        self, spec: TensorSpec, shard: Any, labels: Sequence[tuple[str, np.ndarray]], rows: int
    ) -> np.ndarray:
        """The factors of the weights, a column for each."""
        factors = np.ones((rows, len(spec.columns)))
        for k, column in enumerate(spec.columns):
            given = labels[0][1] if column.kind == "class" else shard.get(column.name)
            plain = isinstance(given, np.ndarray) and given.dtype.kind in "iufb"
            if not plain or given.size != rows or len(given) != rows:
                self._flaw(column.name, "layout", rows, "no array with a number for each row")
                continue
            values = given.reshape(rows).astype(np.float64)
            if column.decode is not None:
                values = column.decode(values)
            elif bad := bad_rows(odd := ~(np.isfinite(values) & (values >= 0))):
                self._flaw(column.name, "weight", bad, str(values[odd][0]))
            factors[:, k] = values
        count_weightless(self.remarks, spec.columns[0].name, factors)
        return factors

    def _cast(self, k: int, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
        name, rows = spec.name, len(array)
        if array.shape[1:] != spec.shape:
            self._flaw(name, "ragged", rows, f"shapes {spec.shape} and {array.shape[1:]}")
            return array
        wanted = np.dtype(spec.dtype)
        if (array.dtype.kind in _TEXTS) != spec.is_text:
            self._flaw(name, "ragged", rows, f"dtypes {wanted} and {array.dtype}")
            return array
        if spec.is_text:
            return self._texts(name, array)
        if array.dtype.kind == "f" and wanted.kind != "f":
            self._flaw(name, "ragged", rows, f"dtypes {wanted} and {array.dtype}")
            return array
        with np.errstate(over="ignore"):
            out = array.astype(wanted, order="C", copy=False)
        if wanted.kind == "f":
            self._check_floats(k, name, array, out)
            count_infinite(self.remarks, name, out)
        return out

    def _texts(self, name: str, array: np.ndarray) -> np.ndarray:
        """Cells as bytes."""
        cells = array.reshape(-1).tolist()
        made = [cell.encode() if isinstance(cell, str) else cell for cell in cells]
        if odd := [cell for cell in made if not isinstance(cell, bytes)]:
            # pandas has NaN in the place of a text that is missing.
            holes = sum(cell is None or cell != cell for cell in odd)
            if holes:
                self._flaw(name, "null", holes, "")
            if holes < len(odd):
                self._flaw(name, "text", len(odd) - holes, "")
        out = np.empty(len(made), TEXT)
        out[:] = made
        return out.reshape(array.shape)

    def _check_floats(self, k: int, name: str, array: np.ndarray, out: np.ndarray) -> None:
        rows = out.reshape(len(out), -1)
        if k >= self._cuts[0] and (bad := int(np.isnan(rows).any(axis=1).sum())):
            self._flaw(name, "nan", bad, "")
        if array.dtype.kind == "f" and array.dtype.itemsize > out.dtype.itemsize:
            lost = np.isinf(rows) & np.isfinite(array.reshape(len(out), -1))
            if bad := int(lost.any(axis=1).sum()):
                self._flaw(name, "overflow", bad, "")

    def _flaw(self, name: str, kind: str, rows: int, example: str) -> None:
        add_flaw(self.flaws, Flaw(name, kind, rows, example))


def dict_arrays(shard: Any) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]:
    """The named arrays of a shard: those of `x`, and those of `y` if there are any.

    Raises:
        ContractError: The shard is no dict, has no `x`, or arrays have different lengths.
        InputError: Something in it is no array of numbers.
    """
    if not isinstance(shard, Mapping):
        raise ContractError(
            "dicts of arrays (each shard should be an dict)",
            type(shard).__name__,
            'Give each shard {"x": array, "y": array}.',
        )
    if "x" not in shard:
        raise ContractError(
            "dicts with the key x (key x should in each shard)",
            f"the keys {sorted(map(str, shard))}",
            'Give each shard {"x": array, "y": array}.',
        )
    parts = [_named(key, shard[key]) if key in shard else [] for key in ("x", "y")]
    lengths = {len(array) for part in parts for _, array in part}
    if len(lengths) > 1:
        raise ContractError(
            "arrays of one length in a shard", f"lengths {sorted(lengths)}", "Cut them alike."
        )
    return parts[0], parts[1]


def _named(key: str, value: Any) -> list[tuple[str, np.ndarray]]:
    several = isinstance(value, list | tuple)
    arrays = list(value) if several else [value]
    names = [f"{key}[{i}]" for i in range(len(arrays))] if several else [key]
    for name, array in zip(names, arrays, strict=True):
        if not isinstance(array, np.ndarray) or not array.ndim or not _is_plain(array):
            shown = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else ""
            raise InputError(
                f"{name} as a numpy array of numbers with rows in front, or {key} as a list or "
                "tuple of such arrays",
                f"{type(array).__name__} {shown}".strip(),
                "Convert it with numpy.asarray in transform_shard.",
            )
    return list(zip(names, arrays, strict=True))


def _is_plain(array: np.ndarray) -> bool:
    """Whether it holds numbers or texts; those of an array of objects are looked at later."""
    kind = array.dtype.kind
    return kind in "iufbUS" or (
        kind == "O" and isinstance(next(array.flat, ""), str | bytes | None)
    )


def _describe(shard: Any, names: set[str]) -> tuple[int, Any]:
    """Rows of a shard (-1 with an error) and its layout."""
    if isinstance(shard, pd.DataFrame):
        try:
            return len(shard), _arrow_schema(shard, names) if len(shard) else None
        except ColumnError as exc:
            return -1, exc
    try:
        x, y = dict_arrays(shard)
    except InputError as exc:
        return -1, exc
    rows = len(x[0][1]) if x else 0
    layout = [
        [(n, TEXT if a.dtype.kind in _TEXTS else a.dtype.name, a.shape[1:]) for n, a in part]
        for part in (x, y)
    ]
    others = sorted(str(key) for key in shard if key not in ("x", "y"))
    return rows, (layout[0], layout[1] if "y" in shard else None, others)


def _arrow_schema(shard: pd.DataFrame, names: set[str]) -> pa.Schema:
    """Columns of a DataFrame; of those that nobody asks for, only the names."""
    used = shard[[label for label in shard.columns if str(label) in names]]
    kinds = {field.name: field for field in arrow_columns(used).schema}
    return pa.schema([kinds.get(str(c), pa.field(str(c), pa.null())) for c in shard.columns])


def _frame_pieces(schema: pa.Schema, plan: TensorPlan, shards: Iterable[Any]) -> Pieces:
    kinds = pa.schema([schema.field(name) for name in plan.columns])
    return ArrowPieces(plan, _batches(kinds, shards))


def _batches(kinds: pa.Schema, shards: Iterable[Any]) -> Iterator[pa.RecordBatch]:
    for shard in shards:
        if not isinstance(shard, pd.DataFrame):
            raise ContractError(_KINDS, type(shard).__name__, "Make all shards DataFrames.")
        labels = {str(label): label for label in shard.columns}
        if missing := [name for name in kinds.names if name not in labels]:
            raise ColumnError(
                f"the columns {kinds.names} in every shard",
                f"a shard without {missing}",
                "Make all shards alike with transform_shard.",
            )
        if len(shard):
            table = arrow_columns(shard[[labels[name] for name in kinds.names]])
            yield from _as_planned(table, kinds).to_batches(max_chunksize=_BATCH_ROWS)


def _as_planned(table: pa.Table, kinds: pa.Schema) -> pa.Table:
    try:
        return table.cast(kinds).combine_chunks()
    except pa.ArrowException as exc:
        raise ColumnError(
            f"columns of the types of the first shard, {dict(zip(kinds.names, kinds.types))}",  # noqa: B905
            f"{dict(zip(table.column_names, table.schema.types))} ({exc})",  # noqa: B905
            "Convert the columns with astype in transform_shard.",
        ) from None


def _tensor_dtype(dtype: np.dtype[Any], float_dtype: str) -> str:
    if dtype.kind in "fb":
        return float_dtype
    if dtype == TEXT:
        return TEXT
    return "int64" if dtype.itemsize > 1 else dtype.name


def flat_names(columns: Sequence[Columns | None]) -> Iterator[str]:
    """The names in `feature_cols` and `label_cols`, however they are nested."""
    for entry in columns:
        if isinstance(entry, (list, tuple)):
            yield from flat_names(entry)
        elif isinstance(entry, str):
            yield entry


def shard_length(shard: Any) -> int:
    """Rows of a shard."""
    if isinstance(shard, pd.DataFrame):
        return len(shard)
    x, _ = dict_arrays(shard)
    return len(x[0][1]) if x else 0


def _head(shard: Any, count: int) -> Any:
    if isinstance(shard, pd.DataFrame):
        return shard.head(count)

    def cut(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(array[:count] for array in value)
        return value[:count]

    rows = shard_length(shard)
    own = [k for k, v in shard.items() if isinstance(v, np.ndarray) and v.shape[:1] == (rows,)]
    return {**shard, **{key: cut(shard[key]) for key in {"x", "y", *own} if key in shard}}
