"""The first rows of a process: they make what model, loss and metrics make when first called."""

from __future__ import annotations

from keras import tree

from zoo.orca.learn.keras.backends import Backend
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.metrics import KerasMetrics
from zoo.orca.learn.rank.array_batches import Batch

__all__ = ["first_rows", "prepare", "try_metrics"]


def first_rows(batch: Batch, rows: int = 2) -> Batch:
    """The first rows of a batch."""
    features, targets = tree.map_structure(lambda a: a[:rows], (batch.features, batch.targets))
    weights = None if batch.weights is None else batch.weights[:rows]
    return Batch(features, targets, min(rows, batch.rows), weights)


def prepare(built: Built, metrics: KerasMetrics | None, batch: Batch) -> None:
    """Show a model, its losses and metrics a few rows, outside of any compiled function.

    Args:
        built: In which losses say what they weigh.
        metrics: Are to have their variables; None for none.
        batch: Rows like those to come.
    """
    few = first_rows(batch)
    x = built.arguments(few.features)
    y_pred = built.called(x, training=False)
    y = built.wanted(few.targets, y_pred)
    if metrics is not None:
        metrics.build(y, y_pred)
    if built.model.compiled:
        built.compute(x, y, y_pred, few.weights, training=False)
    built.ready()


def try_metrics(built: Built, metrics: KerasMetrics, backend: Backend, batch: Batch) -> None:
    """Try on a batch whether metrics that are not Keras's own add up.

    Raises:
        InputError: They do not.
    """
    if metrics.doubtful:
        y_pred = backend.forward(batch.features)
        y, x = built.wanted(batch.targets, y_pred), built.arguments(batch.features)
        metrics.require_sums(y, y_pred, batch.weights, x)
