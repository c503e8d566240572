"""What users pass as data, recognised at the edge and laid out as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.types import StructType
from torch import nn

from zoo.cluster.session import active_session
from zoo.errors import ContractError
from zoo.orca.data.frame import as_frame
from zoo.orca.data.plan import Columns, Decoder, TensorPlan, Use, plan_columns
from zoo.orca.data.rows import FrameRows
from zoo.orca.data.xshards.rows import ShardRows, plan_dicts, shard_rows
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.pytorch.batches import LoaderSource
from zoo.orca.learn.pytorch.recipe import float_dtype, takes_one_input
from zoo.orca.learn.pytorch.sources import Data, TableData

__all__ = ["Inputs", "require_same_kind"]


@dataclass(frozen=True)
class Inputs:
    """What an estimator knows when it looks at data.

    Attributes:
        model: Whose tensors they are.
        config: Handed to data creators; its `seed` is that of the order of rows.
        decoders: For columns by name.
        compares: Whether anything compares outputs with targets.
        seen: The layout of the last fit.
    """

    model: nn.Module
    config: Mapping[str, Any]
    decoders: Mapping[str, Decoder]
    compares: bool
    seen: TensorPlan | None

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
            seed = int(self.config.get("seed", 0))
            return LoaderSource(data, self.config, batch_size, seed)
        if data is None:
            raise ContractError(
                f"{what} data", "None", "Pass a DataFrame, XShards or a data creator."
            )
        if isinstance(data, SparkXShards):
            return TableData(*self.shards(data, columns, use=use))
        frame = as_frame(data, active_session()).spark
        return TableData(FrameRows(frame), self.layout(frame.schema, columns, use=use))

    def shards(
        self,
        shards: SparkXShards,
        columns: tuple[Columns | None, Columns | None],
        *,
        need_labels: bool = True,
        use: Use = "score",
    ) -> tuple[ShardRows, TensorPlan]:
        """The rows of shards, and the layout of their tensors."""
        rows, facts = shard_rows(shards.rdd, columns)
        if facts is None:
            schema = rows.spark_schema
            return rows, self.layout(schema, columns, need_labels=need_labels, use=use)
        wanted = need_labels and self.compares
        return rows, plan_dicts(facts, float_dtype(self.model), need_labels=wanted)

    def layout(
        self,
        schema: StructType,
        columns: tuple[Columns | None, Columns | None],
        *,
        need_labels: bool = True,
        use: Use = "score",
    ) -> TensorPlan:
        """The tensors of a frame with this schema."""
        plan = plan_columns(
            schema,
            *columns,
            float_dtype=float_dtype(self.model),
            decoders=self.decoders,
            assemble=takes_one_input(self.model),
            need_labels=need_labels and self.compares,
            use=use,
        )
        return _with_shapes_of(plan, self.seen)


def _with_shapes_of(plan: TensorPlan, seen: TensorPlan | None) -> TensorPlan:
    """For prediction: shapes that the last fit found, when the features are the same."""
    if plan.labels or seen is None:
        return plan
    if [t.columns for t in plan.features] != [t.columns for t in seen.features]:
        return plan
    return TensorPlan(seen.features, ())


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
