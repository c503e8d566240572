"""Which types a model and its loss take, found out on the driver before any job.

A few made-up rows are tried. Keras converts numbers to the types of its inputs itself, so what is
found are wrong numbers and shapes of columns, outputs that the loss cannot compare with targets,
and one column for a layer that takes a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.plan import TensorPlan, TensorSpec
from zoo.orca.learn.keras.built import Built, float_dtype
from zoo.orca.learn.rank.array_batches import zeros
from zoo.orca.learn.score.predict import Predictor
from zoo.orca.learn.tried_types import (
    as_type,
    is_real,
    other_features,
    other_types,
    readings,
    refusal,
)

__all__ = ["as_taken"]

_ROWS = 3
_SPARSE = keras.losses.sparse_categorical_crossentropy
# What Keras and its backends say of shapes and types. Anything else may be due to made-up numbers.
_WORDS = (
    "shape", "incompatible", "imension", "rank", "ndim", "structure", "dtype", "unpack", "cast",
    "Unsupported", "not supported", "Expected", "expects", "Matrix", "mismatch", "convert",
)  # fmt: skip


def as_taken(
    built: Built, plan: TensorPlan, fixed: frozenset[str], predictor: Predictor | None = None
) -> TensorPlan:
    """The layout in which model and loss can take the tensors.

    Args:
        built: Its model; one without Input layers gets its weights here.
        plan: Features, and targets if there are any.
        fixed: Columns whose type the user has chosen.
        predictor: Tried in the place of the model.

    Raises:
        ColumnError: No reading of the columns fits.
    """
    if any(spec.shape is None or spec.dtype is None for spec in plan.features):
        return plan
    _require_inputs(built.model, plan.features)
    features = _features(built, plan.features, fixed, predictor)
    plan = replace(plan, features=features)
    known = all(spec.shape is not None and spec.dtype is not None for spec in plan.tensors)
    if not (plan.labels and known and built.model.compiled and built.model.built):
        return plan
    return replace(plan, labels=_labels(built, plan, fixed))


def _require_inputs(model: keras.Model, specs: Sequence[TensorSpec]) -> None:
    """Refuse columns that are not one for each input, or not in their order."""
    inputs = getattr(model, "inputs", None)
    if inputs is None:
        return
    names = [tensor._keras_history.operation.name for tensor in inputs]
    struct = getattr(model, "_inputs_struct", None)
    if isinstance(struct, Mapping):
        names = list(struct)
    given = [spec.name for spec in specs]
    if len(given) != len(names):
        raise ColumnError(
            f"{len(names)} feature_cols, one for each input of the model: {', '.join(names)}",
            f"{len(given)}: {', '.join(given)}",
            "Columns of one input go into a list of their own: [['a', 'b'], 'c'].",
        )
    if given != names and sorted(given) == sorted(names):
        raise ColumnError(
            f"feature_cols in the order of the model's inputs: {', '.join(names)}",
            ", ".join(given), "Put them in that order, or give the inputs other names.",
        )  # fmt: skip


def _features(
    built: Built,
    specs: tuple[TensorSpec, ...],
    fixed: frozenset[str],
    predictor: Predictor | None,
) -> tuple[TensorSpec, ...]:
    failed: list[Exception] = []
    others = partial(other_features, fixed=fixed, real=float_dtype(built.model))
    for tried in readings(specs, others):
        rows = _made_up(tried)
        try:
            built.ready([(str(s.dtype), list(s.shape or ())) for s in tried])
            if predictor is not None:
                predictor(rows)
            else:
                built.called(built.arguments(rows), training=False)
        except Exception as exc:  # noqa: BLE001 - the user's own model
            failed.append(exc)
        else:
            return tried
    _refuse(
        failed, specs,
        "Give as many columns as the input takes. A model that is called with a list of inputs "
        "gets one from feature_cols=[['a'], ['b']], or has Input layers.",
    )  # fmt: skip
    return specs


def _labels(built: Built, plan: TensorPlan, fixed: frozenset[str]) -> tuple[TensorSpec, ...]:
    x = built.arguments(_made_up(plan.features))
    try:
        y_pred = built.called(x, training=False)
    except Exception:  # noqa: BLE001 - made-up numbers need not please the user's model
        return plan.labels
    rows = len(_made_up(plan.features)[0])
    weights = None if plan.weight is None else np.ones(rows)
    failed: list[Exception] = []
    others = partial(other_types, fixed=fixed, real=float_dtype(built.model))
    for tried in readings(_numbers_of_classes(built.model, plan.labels, fixed), others):
        targets = [zeros(spec, rows) for spec in tried]
        try:
            with built.weigh():
                y = built.wanted(targets, y_pred)
                built.compute(x, y, y_pred, weights, training=False)
        except InputError:
            raise
        except Exception as exc:  # noqa: BLE001 - the user's own loss
            failed.append(exc)
        else:
            return tried
    _refuse(failed, plan.labels, "Give the label_cols that the losses of the model compare with.")
    return plan.labels


def _numbers_of_classes(
    model: keras.Model, specs: tuple[TensorSpec, ...], fixed: frozenset[str]
) -> tuple[TensorSpec, ...]:
    """The targets; numbers of classes as whole numbers, as Keras would cut off the rest."""
    losses = keras.tree.flatten(model._compile_loss._user_loss) if model._compile_loss else []
    if len(losses) == 1:
        losses *= len(specs)
    if len(losses) != len(specs):
        return specs
    return tuple(
        as_type(spec, "int64", fixed) if _compares_classes(loss) and is_real(spec) else spec
        for spec, loss in zip(specs, losses, strict=True)
    )


def _compares_classes(loss: Any) -> bool:
    return loss in ("sparse_categorical_crossentropy", _SPARSE) or isinstance(
        loss, keras.losses.SparseCategoricalCrossentropy
    )


def _made_up(specs: Sequence[TensorSpec]) -> list[Any]:
    """Rows of zeros, as many as no tensor has columns: rows taken for columns would not fit."""
    widths = {spec.shape[0] for spec in specs if spec.shape}
    rows = next(k for k in range(_ROWS, _ROWS + len(widths) + 1) if k not in widths)
    return [zeros(spec, rows) for spec in specs]


def _refuse(failed: Sequence[Exception], specs: Sequence[TensorSpec], remedy: str) -> None:
    """Tell of an error that the made-up numbers have no part in.

    Raises:
        ColumnError: There is one.
    """
    for error in failed:
        if any(word in str(error) for word in _WORDS):
            raise refusal(error, specs, "Keras", remedy) from None
