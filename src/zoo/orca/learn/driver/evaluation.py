"""Evaluation where the rows are: a Spark job over all partitions, no ranks."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.rows import Pieces, Rows, TaskPlace
from zoo.orca.learn.score.evaluate import PART_SCHEMA, SentEvaluator, score_part, sums_of

__all__ = ["evaluate_rows"]


def evaluate_rows(
    rows: Rows,
    plan: TensorPlan,
    sent: SentEvaluator,
    batch_size: int,
) -> list[Any]:
    """Score all rows; each partition gives its sums.

    Args:
        rows: Of any kind of data.
        plan: Features and targets.
        sent: Model, loss and metrics.
        batch_size: Rows that the model sees at once.

    Returns:
        The sums of all partitions.

    Raises:
        ColumnError: Cells cannot become numbers.
        InputError: There are no rows.
        Exception: Whatever model, loss or metrics raise in a task, as its own type.
    """
    blob, opened = rows.broadcast(sent.blob), sent.open

    def score(pieces: Pieces, task: TaskPlace) -> Iterator[pa.RecordBatch]:
        place = f"partition {task.partition} on {platform.node()}"
        yield score_part(pieces, lambda: opened(blob.value, plan), batch_size, place)

    try:
        return sums_of(rows.run(plan, score, PART_SCHEMA))
    finally:
        blob.destroy()
