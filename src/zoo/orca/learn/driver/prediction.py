"""Prediction where the rows are: ordinary Spark tasks, no ranks.

Prediction is a column like any other. Only the columns that the model reads leave the JVM, and
Spark pairs the result with the untouched rest of the row itself, so rows cannot be mixed up, and
whatever is not selected later is not computed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import types as T
from pyspark.sql.functions import (
    array,
    format_string,
    get,
    lit,
    raise_error,
    spark_partition_id,
    transform,
    when,
)
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.pandas.types import from_arrow_type

from zoo.errors import InputError
from zoo.orca.data.frame import select_columns
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import raise_flaws
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.plan_columns import quoted
from zoo.orca.data.tensors.spark_rows import task_place
from zoo.orca.data.xshards.error_inbox import Reporting
from zoo.orca.data.xshards.jobs import map_shards
from zoo.orca.data.xshards.shard_rows import ShardRows, shard_length
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.score.predict import (
    Faults,
    Kinds,
    Predictor,
    SentModel,
    arrow_type,
    outputs_of,
    predict_arrow,
    prediction_kinds,
    with_prediction,
)

__all__ = ["predict_frame", "predict_shards", "require_predictable", "with_names"]

_NAME = "prediction"
# Of which the first is tried that can be predicted.
_TRIED_ROWS = 20


def require_predictable(data: Any, faults: Faults) -> None:
    """Refuse data with no place for a prediction, or for one that is null.

    Raises:
        InputError: It has none.
    """
    if callable(data) and not isinstance(data, DataFrame):
        raise InputError(
            "a Spark DataFrame, XShards, a pandas DataFrame or a pyarrow.Table to predict on",
            "a function",
            "Rows of a data creator have no place for a prediction.",
        )
    if isinstance(data, SparkXShards) and faults != Faults():
        raise InputError(
            "a frame for on_null='null' or on_error='null'", "XShards",
            "Arrays have no place for a null: use shards.to_spark_df(), or filter the rows.",
        )  # fmt: skip


def predict_frame(
    frame: DataFrame,
    model: SentModel,
    plan: TensorPlan,
    here: Predictor,
    batch_size: int,
    faults: Faults = Faults(),  # noqa: B008 - it is frozen
    kinds: Kinds | None = None,
) -> DataFrame:
    """The frame with one more column, `prediction`. Nothing is computed yet.

    Args:
        frame: Whose columns are read.
        model: Gives the output for each row.
        plan: The features.
        here: The same model on the driver, to learn the type of the column from.
        batch_size: Rows that the model sees at once.
        faults: What becomes of rows that cannot be predicted.
        kinds: What the outputs of a row are; None finds it out.
    """
    if kinds is None:
        kinds = prediction_kinds(here, plan, _sample_of(frame, plan, faults), faults)
    blob, open_model = frame.sparkSession.sparkContext.broadcast(model.blob), model.open
    key, names = model.key or uuid.uuid4().hex, plan.columns

    def predict(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        with Reporting(f"partition {task_place().partition}"):
            predictor = _held(key, lambda: open_model(blob.value))
            decoder = PlanDecoder(plan, batch_size)
            for arrays in batches:
                # Of one column Spark gives the array itself, without a tuple around it.
                given = list(arrays) if isinstance(arrays, tuple) else [arrays]
                batch = pa.RecordBatch.from_arrays(given[: len(names)], names=names)
                yield predict_arrow(predictor, decoder, batch, kinds, batch_size, faults)

    udf: Any = arrow_udf(predict, from_arrow_type(arrow_type(kinds)))  # type: ignore[call-overload]
    columns = [frame[quoted(name)] for name in names]
    if not _holds_vectors(frame.schema):
        return frame.withColumn(_NAME, _as_vectors(udf(*columns), kinds))
    # Where the rows come in columns, from a cache or a file, Spark hands these to Python and
    # cannot carry ML vectors past it (as of 4.3). A column that it has to compute first, and that
    # it cannot compute later, makes rows of them; a setting of the session would do so for all.
    mark = f"__zoo_row_{uuid.uuid4().hex[:8]}"
    marked = frame.withColumn(mark, spark_partition_id())
    column = udf(*columns, marked[mark])
    return marked.withColumn(_NAME, _as_vectors(column, kinds)).drop(mark)


def _holds_vectors(kind: T.DataType) -> bool:
    if isinstance(kind, T.StructType):
        return any(_holds_vectors(field.dataType) for field in kind)
    if isinstance(kind, T.ArrayType):
        return _holds_vectors(kind.elementType)
    return isinstance(kind, T.UserDefinedType)


def _as_vectors(column: Column, kinds: Kinds) -> Column:
    """Python gives lists to Spark, which makes vectors of them: from a cache it takes none."""
    if not isinstance(kinds, list) and (isinstance(kinds, Mapping) or kinds.dims != 1):
        return column
    # It takes a second to import, which most predictions go without.
    from pyspark.ml.functions import array_to_vector

    if isinstance(kinds, list):
        return transform(column, array_to_vector)
    return when(column.isNotNull(), array_to_vector(column))


def _sample_of(frame: DataFrame, plan: TensorPlan, faults: Faults) -> Callable[[], pa.Table]:
    """Gives a few rows, where the layout alone does not tell what the model will return.

    Args:
        frame: Whose columns are read.
        plan: The features.
        faults: Where some are put up with, there are more rows to try, and none has a null.
    """

    def sample() -> pa.Table:
        if frame.isStreaming:
            raise InputError(
                "features whose shapes are known, to predict on a stream",
                "shapes that only rows can tell",
                "Fit before, or predict on each batch, in a function for writeStream.foreachBatch.",
            )
        rows = select_columns(frame, plan.columns)
        rows = rows.limit(2) if faults == Faults() else rows.dropna().limit(_TRIED_ROWS)
        return rows.toArrow()

    return sample


# The last models that this worker process scored with: tasks of one job share them.
_models: dict[str, Predictor] = {}


def _held(key: str, make: Callable[[], Predictor]) -> Predictor:
    if key not in _models:
        while len(_models) > 1:
            _models.pop(next(iter(_models)))
        _models[key] = make()
    return _models[key]


def with_names(frame: DataFrame, classes: Sequence[str] | None) -> DataFrame:
    """The frame with names of classes in the place of their numbers.

    Args:
        frame: From `predict_frame`; its predictions are class numbers.
        classes: One name for each; None leaves the numbers.
    """
    if classes is None:
        return frame
    number, names = frame[_NAME].cast("int"), array(*map(lit, classes))
    beyond = format_string(f"a class for each of {len(classes)} names in classes; found %d", number)
    named = when(number >= len(classes), raise_error(beyond)).otherwise(get(names, number))
    return frame.withColumn(_NAME, named)


def _named(numbers: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    if numbers.size and numbers.max() >= len(classes):
        raise InputError(
            "a name in classes for each class",
            f"{len(classes)} names, and class {numbers.max()}",
            "Give them in the order of the model's outputs.",
        )
    names: np.ndarray = np.asarray(classes)[numbers]
    return names


def predict_shards(
    rows: ShardRows,
    model: SentModel,
    plan: TensorPlan,
    batch_size: int,
    classes: Sequence[str] | None = None,
) -> SparkXShards:
    """XShards of dicts with the model's output under the key `prediction`.

    Args:
        rows: From `shard_rows`; each, in order, gets an output.
        model: Gives it.
        plan: The features.
        batch_size: Rows that the model sees at once.
        classes: Names for class numbers.

    Returns:
        For shards that are dicts these dicts with one more key; for DataFrames dicts of `x`, a
        list of the feature columns, and `prediction`. One array, a list for several outputs, or a
        dict for outputs with names.
    """
    blob, open_model = rows.context.broadcast(model.blob), model.open
    key, read = model.key or uuid.uuid4().hex, rows.read

    def predict(shard: Any) -> dict[str, Any]:
        pieces = read(plan, [shard])
        outputs = outputs_of(_held(key, lambda: open_model(blob.value)), pieces, batch_size)
        raise_flaws(list(pieces.flaws.values()))
        given = (
            shard
            if isinstance(shard, Mapping)
            else {"x": [shard[name].to_numpy() for name in plan.columns]}
        )
        scored = with_prediction(given, outputs, shard_length(shard))
        if classes is not None:
            scored[_NAME] = _named(scored[_NAME].astype(int), classes)
        return scored

    # Not transform_shard: that would drop the shards, which are still wanted, from memory.
    return SparkXShards(map_shards(rows.rdd, predict))
