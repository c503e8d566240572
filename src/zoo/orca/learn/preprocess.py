"""Columns made ready for a model by stages of `pyspark.ml`: strings, categories, numbers.

An estimator takes them as `preprocess`, a `pyspark.ml.Pipeline` or a `PipelineModel`. `encode`
makes the usual one; any other, of stages of `pyspark.ml.feature`, does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import (
    OneHotEncoder,
    StandardScaler,
    StringIndexer,
    StringIndexerModel,
    VectorAssembler,
)

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError

__all__ = ["encode", "vocabularies"]


def encode(
    *,
    index: Sequence[str] = (),
    one_hot: Sequence[str] = (),
    scale: Sequence[str] = (),
    label: str | None = None,
) -> Pipeline:
    """Stages that turn categories and numbers into columns for a model.

    Nothing is looked at before the pipeline is fitted: by the first `fit` of an estimator that has
    it as `preprocess`, or by its own `fit`.

    Args:
        index: Columns of strings or numbers, each a category. `<name>_index` is a number from 0,
            the most frequent value first. Values that were not there when the stages were fitted,
            and nulls, have one number more, that after the last: an embedding needs that row too.
        one_hot: The same as vectors, `<name>_onehot`, with a place for each value. Values that
            were not there, and nulls, are all zeros. Spark takes no empty texts here when it fits:
            make them null before.
        scale: Columns of numbers, put side by side in one vector, `scaled`: each less its mean and
            divided by its standard deviation (that of a sample; 0 where all numbers are equal).
            Nulls and NaN are an error: fill them before, or put `pyspark.ml.feature.Imputer` in
            front.
        label: The column of classes. `<name>_index` is a number from 0, in alphabetical order.
            Values that were not there, and nulls, are an error.

    Raises:
        InputError: No column is named, or one is no name.
        ClusterError: No Spark runs.
    """
    named = {"index": index, "one_hot": one_hot, "scale": scale}
    for argument, names in named.items():
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{argument} as a list of names", repr(names), "Pass ['country'].")
    if label is not None and not isinstance(label, str):
        raise InputError("label as a name", repr(label), "Pass 'churned', for example.")
    if not (any(named.values()) or label):
        raise InputError("columns to encode", "none", "Pass index=['country'], for example.")
    active_session()  # stages are objects of its JVM
    categories = list(dict.fromkeys([*index, *one_hot]))
    stages: list[Any] = []
    if categories:
        numbers = [f"{name}_index" for name in categories]
        stages.append(StringIndexer(inputCols=categories, outputCols=numbers, handleInvalid="keep"))
    if one_hot:
        # The place of what is unknown is the last one, which the encoder leaves out.
        vectors = [f"{name}_onehot" for name in one_hot]
        stages.append(
            OneHotEncoder(inputCols=[f"{name}_index" for name in one_hot], outputCols=vectors)
        )
    if scale:
        stages.append(VectorAssembler(inputCols=list(scale), outputCol="unscaled"))
        stages.append(StandardScaler(inputCol="unscaled", outputCol="scaled", withMean=True))
    if label is not None:
        order = "alphabetAsc"
        stages.append(
            StringIndexer(inputCol=label, outputCol=f"{label}_index", stringOrderType=order)
        )
    return Pipeline(stages=stages)


def vocabularies(fitted: PipelineModel) -> dict[str, list[str]]:
    """The values that were there when a pipeline was fitted.

    Args:
        fitted: The stages.

    Returns:
        For each column that a `StringIndexer` makes, the values in the order of their numbers.
        Where others have a number of their own, `__unknown` is the last of them, as in Spark.
    """
    found: dict[str, list[str]] = {}
    for stage in fitted.stages:
        if isinstance(stage, PipelineModel):
            found |= vocabularies(stage)
        if isinstance(stage, StringIndexerModel):
            several = stage.isSet("outputCols")
            names = stage.getOutputCols() if several else [stage.getOutputCol()]
            unknown = ["__unknown"] if stage.getHandleInvalid() == "keep" else []
            for name, values in zip(names, stage.labelsArray, strict=True):
                found[name] = [*values, *unknown]
    return found
