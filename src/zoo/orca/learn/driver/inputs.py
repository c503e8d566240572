"""What users pass as data, recognised at the edge and laid out as tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from zoo.cluster.host import OneAtATime
from zoo.cluster.session.lifecycle import active_session
from zoo.cluster.settings import settings
from zoo.errors import ContractError, InputError
from zoo.orca.data.frame import Frame, as_frame
from zoo.orca.data.tensors.frame_rows import FrameRows
from zoo.orca.data.tensors.plan import Columns, Decoder, TensorPlan, TensorSpec, Use
from zoo.orca.data.tensors.plan_columns import plan_columns, require_weight_column
from zoo.orca.data.tensors.row_weights import RowWeights, balanced, weigh
from zoo.orca.data.tensors.rows import Rows
from zoo.orca.data.xshards.shard_rows import ShardRows, flat_names, plan_dicts, shard_rows
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.driver.sources import Data, TableData
from zoo.orca.learn.driver.stages import Stages
from zoo.orca.learn.order import GivenData, LoaderSource

__all__ = ["Inputs", "require_same_kind"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What an estimator knows when it looks at data.

    Attributes:
        float_dtype: What floating-point columns become.
        one_input: The model takes one argument, so columns become one matrix.
        config: Handed to data creators; its `seed` is that of the order of rows.
        decoders: For columns by name.
        compares: Whether anything compares outputs with targets.
        seen: The layout of the last fit.
        known: The `feature_cols` and `label_cols` that it had, for calls that name none.
        as_taken: Gives a layout the types that model and loss take.
        stages: Applied to frames before anything looks at their columns.
        weights: What rows weigh in the loss; classes only where they are trained on.
        text: Features may be texts.
        steps: Of an epoch of a data creator, by what it is for; see `LoaderSource`.
    """

    float_dtype: str
    one_input: bool
    config: Mapping[str, Any]
    decoders: Mapping[str, Decoder]
    compares: bool
    seen: TensorPlan | None
    known: tuple[Columns | None, Columns | None] = (None, None)
    as_taken: Callable[..., TensorPlan] = lambda plan: plan
    stages: Stages = field(default_factory=Stages)
    weights: RowWeights = RowWeights()
    text: bool = False
    steps: Mapping[Use, int] = field(default_factory=dict)

    def filled(
        self, given: tuple[Columns | None, Columns | None], *, need_labels: bool = True
    ) -> tuple[Columns | None, Columns | None]:
        """The columns of a call, or those of the last fit where it names none."""
        features, labels = (k if g is None else g for g, k in zip(given, self.known, strict=True))
        return features, labels if need_labels or given[1] is not None else None

    def source(
        self,
        data: Any,
        columns: tuple[Columns | None, Columns | None],
        batch_size: int,
        what: str,
        *,
        use: Use = "score",
    ) -> Data:
        """Recognise training, validation or evaluation data.

        Args:
            data: See `TorchEstimator`.
            columns: `feature_cols` and `label_cols`.
            batch_size: Rows of a step over all ranks.
            what: Its name in the message when there is none.
            use: What for, as in `plan_columns`.
        """
        if callable(data) and not isinstance(data, DataFrame):
            seed, steps = int(self.config.get("seed", 0)), self.steps.get(use)
            self._require_no_stages("a data creator")
            self._say_unused(columns, "a data creator")
            self._require_no_weights()
            if isinstance(data, GivenData):
                return LoaderSource(data, self.config, data.own_batch_size, seed, steps)
            creator = OneAtATime(data) if settings.serialize_data_creator else data
            part = 0 if use == "train" else 1
            return LoaderSource(creator, self.config, batch_size, seed, steps, part)
        if data is None:
            raise ContractError(
                f"{what} data", "None", "Pass a DataFrame, XShards or a data creator."
            )
        frame: DataFrame | None = None
        if not isinstance(data, SparkXShards):
            frame = self._ready(data, columns, use)

        def read(inputs: Inputs) -> tuple[Rows, TensorPlan]:
            if frame is None:
                return inputs.shards(data, columns, use=use)
            return FrameRows(frame), inputs.layout(frame.schema, columns, use=use)

        return TableData(*self._weighing(read, use))

    def _ready(
        self, data: Any, columns: tuple[Columns | None, Columns | None], use: Use
    ) -> DataFrame:
        """A frame with the columns of the stages, which training fits."""
        if use == "train":
            labels = list(flat_names(self.filled(columns)[1:]))
            data = self._given(data, columns).spark
            self.stages.fit(data, labels[0] if len(labels) == 1 else None)
        return self.frame(data, columns)[1]

    def _weighing(
        self, read: Callable[[Inputs], tuple[Rows, TensorPlan]], use: Use
    ) -> tuple[Rows, TensorPlan]:
        """With the weights of classes only in training, and counted where they are to be."""
        plain = replace(self, weights=replace(self.weights, classes=None))
        if use != "train":
            return read(plain)
        if self.weights.classes != "balanced":
            return read(self)
        classes = balanced(*read(plain), self.weights.column)
        return read(replace(self, weights=replace(self.weights, classes=classes)))

    def _require_no_weights(self) -> None:
        if self.weights != RowWeights():
            raise InputError(
                "a frame or XShards, to weigh rows with sample_weight_col or class_weight",
                "a loader, or a function that makes one",
                "Give the loss the weights of classes, nn.CrossEntropyLoss(weight=...), or let it "
                "return (sum, weight).",
            )

    def frame(
        self,
        data: Any,
        columns: tuple[Columns | None, Columns | None],
        *,
        need_labels: bool = True,
        streams: bool = False,
    ) -> tuple[Frame, DataFrame]:
        """Recognise a frame, and apply the stages.

        Args:
            data: A frame of any kind.
            columns: `feature_cols` and `label_cols`.
            need_labels: Whether labels are read.
            streams: Whether a streaming DataFrame will do.

        Returns:
            What came, and its rows with the columns that the stages make.
        """
        frame = self._given(data, columns, streams=streams)
        return frame, self.stages.apply(frame.spark, self._names(columns, need_labels=need_labels))

    def _given(
        self,
        data: Any,
        columns: tuple[Columns | None, Columns | None],
        *,
        streams: bool = False,
    ) -> Frame:
        used = self.stages.reads | self._names(columns)
        return as_frame(data, active_session(), used, streams=streams)

    def _names(
        self, columns: tuple[Columns | None, Columns | None], *, need_labels: bool = True
    ) -> set[str]:
        """Features, labels and weights."""
        weight = [] if self.weights.column is None else [self.weights.column]
        return {*flat_names((*self.filled(columns, need_labels=need_labels), weight))}

    def _require_no_stages(self, data: str) -> None:
        if self.stages.any:
            raise InputError(
                "a DataFrame for the stages of preprocess", data,
                "Pass shards.to_spark_df(), or an estimator without preprocess.",
            )  # fmt: skip

    def split(
        self, data: Any, columns: tuple[Columns | None, Columns | None], part: float, given: bool
    ) -> tuple[DataFrame, DataFrame]:
        """The rows to train on and those to validate with, which are drawn by the seed.

        Args:
            data: A frame of any kind.
            columns: `feature_cols` and `label_cols`.
            part: Of the rows, for validation.
            given: There is validation data besides.

        Raises:
            ContractError: There is both.
            InputError: It is no part, or the data is no frame.
        """
        if given:
            raise ContractError(
                "validation_data or validation_split", "both", "Leave one of them out."
            )
        if not 0 < part < 1:
            raise InputError("validation_split between 0 and 1", repr(part), "Try 0.2.")
        if isinstance(data, SparkXShards) or (callable(data) and not isinstance(data, DataFrame)):
            raise InputError(
                "a DataFrame for validation_split", type(data).__name__,
                "Split the data yourself, and pass validation_data.",
            )  # fmt: skip
        frame = self._given(data, columns).spark
        train, check = frame.randomSplit([1 - part, part], int(self.config.get("seed", 0)))
        return train, check

    def shards(
        self,
        shards: SparkXShards,
        columns: tuple[Columns | None, Columns | None],
        *,
        need_labels: bool = True,
        use: Use = "score",
    ) -> tuple[ShardRows, TensorPlan]:
        """The rows of shards, and the layout of their tensors."""
        self._require_no_stages("XShards")
        weight = self.weights.column
        used = (*self.filled(columns, need_labels=need_labels), [] if weight is None else [weight])
        rows, facts = shard_rows(shards.rdd, used)
        if facts is None:
            schema = rows.spark_schema
            return rows, self.layout(schema, columns, need_labels=need_labels, use=use)
        self._say_unused(columns, "XShards of dicts")
        wanted = need_labels and self.compares
        plan = plan_dicts(
            facts, self.float_dtype, need_labels=wanted, weight=weight, text=self.text
        )
        plan = self.as_taken(weigh(plan, self.weights))
        return rows, _as_in_fit(plan, self.seen) if use == "score" else plan

    def layout(
        self,
        schema: StructType,
        columns: tuple[Columns | None, Columns | None],
        *,
        need_labels: bool = True,
        use: Use = "score",
    ) -> TensorPlan:
        """The tensors of a frame with this schema.

        Raises:
            InputError: A decoder is for a column that is not there to train on, or the features
                are not like those of the last fit.
        """
        strange = [name for name in self.decoders if name not in schema.names]
        if strange and use == "train":
            raise InputError(
                "decoders for columns of the frame", f"one for {strange[0]!r}",
                f"The frame has {', '.join(schema.names[:20])}.",
            )  # fmt: skip
        plan = plan_columns(
            schema,
            *self.filled(columns, need_labels=need_labels),
            float_dtype=self.float_dtype,
            decoders=self.decoders,
            assemble=self.one_input,
            need_labels=need_labels and self.compares,
            use=use,
            text=self.text,
        )
        if self.weights.column is not None:
            require_weight_column(schema, self.weights.column)
        plan = self.as_taken(weigh(plan, self.weights))
        return _as_in_fit(plan, self.seen) if use == "score" else plan

    def _say_unused(self, columns: tuple[Columns | None, Columns | None], data: str) -> None:
        given = {"feature_cols": columns[0], "label_cols": columns[1], "decoders": self.decoders}
        unused = [name for name, value in given.items() if value]
        if unused:
            _log.warning("%s: not used, as the data is %s", " and ".join(unused), data)


def _as_in_fit(plan: TensorPlan, seen: TensorPlan | None) -> TensorPlan:
    """To score: what is no input of the model is refused before any job, whole numbers may be.

    Raises:
        InputError: The features are not like those of the last fit.
    """
    if seen is None:
        return plan
    if len(plan.features) != len(seen.features):
        raise _unlike(seen.features, plan.features)
    pairs = zip(plan.features, seen.features, strict=True)
    fill = not plan.labels  # the shapes that predict needs to know its column's type
    return replace(plan, features=tuple(_like(now, before, fill=fill) for now, before in pairs))


def _like(now: TensorSpec, before: TensorSpec, *, fill: bool) -> TensorSpec:
    if before.live:
        return now
    whole = now.dtype is not None and np.dtype(now.dtype).kind == "i"
    if whole and before.dtype in ("float32", "float64"):
        columns = tuple(replace(c, dtype=before.dtype, exact=True) for c in now.columns)
        now = replace(now, columns=columns, dtype=before.dtype)
    for mine, its in ((now.dtype, before.dtype), (now.shape, before.shape)):
        if mine is not None and its is not None and mine != its:
            raise _unlike([before], [now])
    if not fill or [c.name for c in now.columns] != [c.name for c in before.columns]:
        return now
    dtype, shape = now.dtype or before.dtype, before.shape if now.shape is None else now.shape
    return replace(now, dtype=dtype, shape=shape)


def _unlike(before: Sequence[TensorSpec], now: Sequence[TensorSpec]) -> InputError:
    return InputError(
        f"features like those of the last fit, {_shown(before)}",
        _shown(now),
        "Pass the feature_cols that fit had, or columns of the same number and types.",
    )


def _shown(specs: Sequence[TensorSpec]) -> str:
    parts = []
    for spec in specs:
        shape = "" if spec.shape is None else f" of shape {spec.shape} for a row"
        kind = "text" if spec.is_text else spec.dtype or "of unknown type"
        parts.append(f"'{spec.name}' ({kind}{shape})")
    return ", ".join(parts)


def require_same_kind(data: Any, validation: Any) -> None:
    """Refuse validation data of another kind than the training data.

    Raises:
        ContractError: It is.
    """
    kinds_match = all(
        isinstance(data, kind) == isinstance(validation, kind) for kind in (DataFrame, SparkXShards)
    )
    if callable(data) != callable(validation) or not kinds_match:
        kinds = f"{type(data).__name__} and {type(validation).__name__}"
        raise ContractError(
            "the same kind (train data and validation data should be both DataFrames, both "
            "XShards, or both data creators)",
            kinds,
            "Convert one of them.",
        )
