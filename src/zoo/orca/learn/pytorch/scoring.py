"""Prediction and evaluation where the rows are: ordinary Spark tasks, no ranks.

Prediction is a column like any other. Only the columns that the model reads leave the JVM, and
Spark pairs the result with the untouched rest of the row itself, so rows cannot be mixed up, and
whatever is not selected later is not computed.
"""

from __future__ import annotations

import json
import pickle
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark import TaskContext
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import types as T
from pyspark.sql.functions import transform
from pyspark.sql.pandas.functions import arrow_udf

from zoo.cluster.carried import carry, raise_carried
from zoo.cluster.launch import pickled
from zoo.errors import InputError
from zoo.orca.data.decode import Flaw, PlanDecoder
from zoo.orca.data.ingest import raise_flaws
from zoo.orca.data.plan import TensorPlan, quoted
from zoo.orca.data.rows import Pieces, Rows
from zoo.orca.data.xshards.jobs import map_shards
from zoo.orca.data.xshards.rows import ShardRows, shard_length
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.operator_scorer import make_scorer, score_batches
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built

__all__ = ["evaluate_rows", "predict_shards", "prediction_column", "prediction_type"]

# While Spark hands columnar data to Python it cannot carry ML vectors past it (as of 4.3).
_COLUMNAR = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"
_PART = "sums string, flaws string, error binary, facts string, place string"


def prediction_type(built: Built, plan: TensorPlan, sample: Callable[[], pa.Table]) -> T.DataType:
    """The column type that the model's output of one row needs.

    Args:
        built: Its model is called once.
        plan: The features.
        sample: Gives a row or two of the columns; called only when the plan does not know the
            shapes, or when the model cannot take zeros.

    Returns:
        A float for one number, an ML vector for several, nested arrays of floats for more
        dimensions, and an array of vectors for several outputs.
    """
    model = built.model
    known = all(t.shape is not None and t.dtype is not None for t in plan.features)
    with _scoring(model):
        if known:
            zeros = [np.zeros((2, *(t.shape or ())), dtype=t.dtype) for t in plan.features]
            try:
                return _type_of(model(*map(torch.from_numpy, zeros)))
            except Exception:  # noqa: BLE001 - zeros are a guess; the frame's own rows decide
                known = False
        table = sample()
        if not table.num_rows:
            return T.FloatType()
        decoder = PlanDecoder(plan)
        for rows in decoder.pieces(table.combine_chunks().to_batches()[0]):
            return _type_of(model(*_tensors(rows)))
        raise_flaws(list(decoder.flaws.values()))
        raise AssertionError("rows, and neither arrays nor flaws of them")


@contextmanager
def _scoring(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout and gradients for a while; then as the user had it."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def _type_of(output: Any) -> T.DataType:
    if isinstance(output, tuple | list):
        return T.ArrayType(VectorUDT())
    if not isinstance(output, torch.Tensor) or not output.ndim:
        raise InputError(
            "a model that returns a tensor with one entry for each row, or several such tensors",
            f"{type(output).__name__}"
            + (" with no dimension" if isinstance(output, torch.Tensor) else ""),
            "predict needs one output for each row.",
        )
    shape = _squeezed(output).shape[1:]
    if len(shape) == 1:
        return VectorUDT()
    kind: T.DataType = T.FloatType()
    for _ in shape:
        kind = T.ArrayType(kind)
    return kind


def _squeezed(output: torch.Tensor) -> torch.Tensor:
    """Without trailing dimensions of one."""
    while output.ndim > 1 and output.shape[-1] == 1:
        output = output.squeeze(-1)
    return output


def prediction_column(
    frame: DataFrame, built: Built, plan: TensorPlan, kind: T.DataType, batch_size: int
) -> Column:
    """A column that holds the model's output for each row.

    Args:
        frame: Whose columns are read.
        built: Its model is sent to the executors as it is now.
        plan: The features.
        kind: From `prediction_type`.
        batch_size: Rows that the model sees at once.
    """
    blob = frame.sparkSession.sparkContext.broadcast(pickled(built.model, "a model"))
    key = uuid.uuid4().hex

    def predict(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        model, decoder = _held(key, lambda: blob.value), PlanDecoder(plan)
        for arrays in batches:
            # Of one column Spark gives the array itself, without a tuple around it.
            given = arrays if isinstance(arrays, tuple) else (arrays,)
            batch = pa.RecordBatch.from_arrays(list(given), names=plan.columns)
            yield _predict(model, decoder, batch, batch_size)

    if _holds_vectors(frame.schema):
        frame.sparkSession.conf.set(_COLUMNAR, "false")
    udf: Any = arrow_udf(predict, _without_vectors(kind))  # type: ignore[call-overload]
    return _as_vectors(udf(*(frame[quoted(c)] for c in plan.columns)), kind)


def _holds_vectors(kind: T.DataType) -> bool:
    if isinstance(kind, T.StructType):
        return any(_holds_vectors(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _holds_vectors(kind.elementType)
    return isinstance(kind, T.UserDefinedType)


def _without_vectors(kind: T.DataType) -> T.DataType:
    """What Python gives to Spark, which makes vectors of it: from a cached frame it takes none."""
    if isinstance(kind, VectorUDT):
        return T.ArrayType(T.DoubleType())
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_without_vectors(kind.elementType))
    return kind


def _as_vectors(column: Column, kind: T.DataType) -> Column:
    if isinstance(kind, VectorUDT):
        return array_to_vector(column)
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, VectorUDT):
        return transform(column, array_to_vector)
    return column


# The last models that this worker process scored with: tasks of one job share them.
_models: dict[str, torch.nn.Module] = {}


def _held(key: str, blob: Callable[[], bytes]) -> torch.nn.Module:
    if key not in _models:
        while len(_models) > 1:
            _models.pop(next(iter(_models)))
        _models[key] = pickle.loads(blob()).eval()
        torch.set_num_threads(1)
    return _models[key]


def _predict(
    model: torch.nn.Module, decoder: PlanDecoder, batch: pa.RecordBatch, batch_size: int
) -> pa.Array:
    outputs = _outputs(model, decoder.pieces(batch), batch_size)
    raise_flaws(list(decoder.flaws.values()))
    joined = _checked(outputs, batch.num_rows)
    if isinstance(joined, list):
        return _array_of_vectors(joined)
    return _to_arrow(_squeezed(joined))


def _outputs(
    model: torch.nn.Module, pieces: Iterable[Sequence[np.ndarray]], batch_size: int
) -> list[Any]:
    """What the model returns, batch by batch."""
    with torch.no_grad():
        return [
            model(*(t[i : i + batch_size] for t in tensors))
            for tensors in map(_tensors, pieces)
            for i in range(0, len(tensors[0]), batch_size)
        ]


def _checked(outputs: Sequence[Any], rows: int) -> torch.Tensor | list[torch.Tensor]:
    """The batches of outputs as one; a list when the model has several outputs."""
    several = isinstance(outputs[0], tuple | list)
    parts = outputs if several else [(output,) for output in outputs]
    joined = [torch.cat([p[k] for p in parts]) for k in range(len(parts[0]))]
    if any(len(output) != rows for output in joined):
        raise InputError(
            "a model that returns one output for each row",
            f"{[len(output) for output in joined]} for {rows} rows",
            "predict pairs rows and outputs; keep the first dimension.",
        )
    return joined if several else joined[0]


def predict_shards(
    rows: ShardRows, built: Built, plan: TensorPlan, batch_size: int
) -> SparkXShards:
    """XShards of dicts with the model's output under the key `prediction`.

    Args:
        rows: From `shard_rows`; each, in order, gets an output.
        built: Its model is sent to the executors as it is now.
        plan: The features.
        batch_size: Rows that the model sees at once.

    Returns:
        For shards that are dicts these dicts with one more key; for DataFrames dicts of `x`, a
        list of the feature columns, and `prediction`. One array, or a list for several outputs.
    """
    blob = rows.context.broadcast(pickled(built.model, "a model"))
    key, read = uuid.uuid4().hex, rows.read

    def predict(shard: Any) -> dict[str, Any]:
        pieces = read(plan, [shard])
        outputs = _outputs(_held(key, lambda: blob.value), pieces, batch_size)
        raise_flaws(list(pieces.flaws.values()))
        given = (
            dict(shard)
            if isinstance(shard, Mapping)
            else {"x": [shard[name].to_numpy() for name in plan.columns]}
        )
        return {**given, "prediction": _arrays(outputs, shard_length(shard))}

    # Not transform_shard: that would drop the shards, which are still wanted, from memory.
    return SparkXShards(map_shards(rows.rdd, predict))


def _arrays(outputs: Sequence[Any], rows: int) -> Any:
    if not rows:
        return np.empty(0, dtype=np.float32)
    joined = _checked(outputs, rows)
    if isinstance(joined, list):
        return [_squeezed(output).numpy() for output in joined]
    return _squeezed(joined).numpy()


def _tensors(arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    # Arrow's buffers are read-only, and torch warns when it could write to such memory.
    return [torch.from_numpy(a if a.flags.writeable else a.copy()) for a in arrays]


def _to_arrow(output: torch.Tensor) -> pa.Array:
    """Floats, doubles for a vector, nested floats for more dimensions."""
    values = output.numpy()
    dtype = np.float64 if values.ndim == 2 else np.float32
    nested = pa.array(values.reshape(-1).astype(dtype, copy=False))
    for size in reversed(values.shape[1:]):
        offsets = pa.array(np.arange(0, len(nested) + 1, size, dtype=np.int32))
        nested = pa.ListArray.from_arrays(offsets, nested)
    return nested


def _array_of_vectors(outputs: Sequence[torch.Tensor]) -> pa.Array:
    rows = len(outputs[0])
    flat = [_to_arrow(o.reshape(rows, -1)) for o in outputs]
    order = np.arange(rows * len(flat)).reshape(len(flat), rows).T.reshape(-1)
    joined = pa.concat_arrays(flat).take(pa.array(order))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * len(flat))
    return pa.ListArray.from_arrays(offsets, joined)


def evaluate_rows(
    rows: Rows,
    built: Built,
    plan: TensorPlan,
    metrics: Mapping[str, AdditiveMetric],
    batch_size: int,
) -> dict[str, float]:
    """Loss and metrics over all rows; each partition gives its sums.

    Raises:
        ColumnError: Cells cannot become numbers.
        Exception: Whatever model, loss or metrics raise in a task, as its own type.
    """
    scorer = make_scorer(built, metrics)
    blob = rows.context.broadcast(pickled((built, dict(metrics)), "a model, loss and metrics"))
    cut = len(plan.features)

    def score(pieces: Pieces) -> Iterator[pa.RecordBatch]:
        return _score(pieces, cut, blob.value, batch_size)

    try:
        parts = rows.run(plan, score, _PART)
    finally:
        blob.destroy()
    for part in parts:
        if part["facts"]:
            raise_carried(bytes(part["error"]), json.loads(part["facts"]), part["place"])
    raise_flaws([Flaw(**f) for part in parts for f in json.loads(part["flaws"])])
    sums = [json.loads(part["sums"]) for part in parts]
    count = int(sum(s[0][0] for s in sums))
    if not count:
        raise InputError(
            "rows to evaluate", "data with zero rows", "Check the filters and joins before it."
        )
    return {**scorer.result(sums), "num_samples": count}


def _score(pieces: Pieces, cut: int, blob: bytes, batch_size: int) -> Iterator[pa.RecordBatch]:
    """The task: sums of one partition, or its flaws, or the error it hit."""
    torch.set_num_threads(1)
    built, metrics = pickle.loads(blob)
    scorer, error, facts = make_scorer(built, metrics), b"", ""
    try:
        if built.operator is not None:
            built.operator.start(built, train=False)
        built.model.eval()
        with torch.no_grad():
            batches = (b for p in pieces for b in _batches(_tensors(p), cut, batch_size))
            score_batches(scorer, batches)
    except Exception as exc:  # noqa: BLE001 - the process boundary: it is raised on the driver
        error, said = carry(exc)
        facts = json.dumps(said)
    task = TaskContext.get()
    place = f"partition {task.partitionId() if task else 0} on {platform.node()}"
    flaws = json.dumps([asdict(f) for f in pieces.flaws.values()])
    values = [json.dumps(scorer.sums()), flaws, error, facts, place]
    names = [part.split()[0] for part in _PART.split(", ")]
    yield pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})


def _batches(tensors: Sequence[torch.Tensor], cut: int, batch_size: int) -> Iterator[Batch]:
    for i in range(0, len(tensors[0]), batch_size):
        views = [t[i : i + batch_size] for t in tensors]
        yield Batch(tuple(views[:cut]), tuple(views[cut:]), len(views[0]))
