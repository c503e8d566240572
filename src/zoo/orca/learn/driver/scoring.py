"""Predict on whatever the user passes, and look at its first rows as the model gets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.orca.data.frame import select_columns
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import raise_flaws
from zoo.orca.data.tensors.plan import Columns, TensorPlan
from zoo.orca.data.xshards.jobs import run_job
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.driver.inputs import Inputs
from zoo.orca.learn.driver.prediction import predict_frame, predict_shards, with_names
from zoo.orca.learn.score.predict import Faults, Kinds, Predictor, SentModel

__all__ = ["Scoring", "first_rows"]


@dataclass(frozen=True)
class Scoring:
    """How rows are predicted.

    Attributes:
        model: Gives the output for each row.
        here: The same model on the driver.
        batch_size: Rows that the model sees at once.
        faults: What becomes of rows that cannot be predicted.
        classes: Names for class numbers.
        kinds: What the outputs of a row are, where that is known.
    """

    model: SentModel
    here: Predictor
    batch_size: int
    faults: Faults = Faults()
    classes: Sequence[str] | None = None
    kinds: Kinds | None = None

    def predict(self, data: Any, features: Columns | None, inputs: Inputs) -> Any:
        """The data with `prediction`, in the form in which it came; see `SparkEstimator.predict`.

        Args:
            data: A frame of any kind, or XShards.
            features: Its columns.
            inputs: What the estimator knows.
        """
        columns = (features, None)
        if isinstance(data, SparkXShards):
            rows, plan = inputs.shards(data, columns, need_labels=False)
            return predict_shards(rows, self.model, plan, self.batch_size, self.classes)
        frame, ready = inputs.frame(data, columns, need_labels=False, streams=True)
        plan = inputs.layout(ready.schema, columns, need_labels=False)
        scored = predict_frame(
            ready, self.model, plan, self.here, self.batch_size, self.faults, self.kinds
        )
        scored = scored.drop(*set(ready.columns).difference(frame.spark.columns))
        scored = with_names(scored, self.classes)
        # What the tasks of this job raise arrives as itself; of a Spark frame none runs yet.
        return run_job(scored.sparkSession.sparkContext, frame.restore, scored)


def first_rows(
    data: Any, columns: tuple[Columns | None, Columns | None], inputs: Inputs, count: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first rows of data as arrays: features as the model gets them, and labels.

    Args:
        data: A frame of any kind, or XShards.
        columns: `feature_cols` and `label_cols`; no labels without the latter.
        inputs: What the estimator knows.
        count: Rows at most.

    Raises:
        InputError: There are none.
    """
    need = columns[1] is not None
    if isinstance(data, SparkXShards):
        rows, plan = inputs.shards(data, columns, need_labels=need)
        first: Any = rows.first(count)
        pieces = rows.read(plan, run_job(rows.context, first.rdd.collect))
        parts = list(pieces)
        raise_flaws(list(pieces.flaws.values()))
    else:
        _, ready = inputs.frame(data, columns, need_labels=need)
        plan = inputs.layout(ready.schema, columns, need_labels=need)
        chosen = select_columns(ready, plan.columns).limit(count)
        parts = list(_decoded(plan, run_job(ready.sparkSession.sparkContext, chosen.toArrow)))
    if not parts:
        raise InputError("rows to look at", "none", "Check what made or filtered the data.")
    arrays = [np.concatenate(same) for same in zip(*parts, strict=True)]
    return arrays[: len(plan.features)], arrays[len(plan.features) :]


def _decoded(plan: TensorPlan, table: Any) -> Iterator[list[np.ndarray]]:
    decoder = PlanDecoder(plan)
    for batch in table.to_batches():
        yield from decoder.pieces(batch)
    raise_flaws(list(decoder.flaws.values()))
