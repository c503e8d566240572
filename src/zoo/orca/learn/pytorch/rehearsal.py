"""Which types a model and its loss take, found out on the driver before any job.

People have whole numbers as doubles and doubles as whole numbers: a class that StringIndexer made,
ages for a linear layer; and one column for a layer that takes a matrix. Where only one reading of a
column can be meant, it is read that way. For a loss of torch that is known; for a model, and for
other losses, a few made-up rows are tried.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.orca.data.tensors.plan import TensorPlan, TensorSpec
from zoo.orca.learn.pytorch.losses import LossPerOutput, weigh_loss
from zoo.orca.learn.pytorch.modes import evaluating
from zoo.orca.learn.pytorch.recipe import Built, float_dtype
from zoo.orca.learn.pytorch.row_losses import BY_CLASS, ELEMENTWISE, RowLossError
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
# What torch says of numbers of arguments, of shapes, and of types. Anything else may be due to the
# made-up numbers.
_REMEDIES = {
    ("positional argument",): "Each entry of feature_cols is one argument of the model's forward.",
    ("shapes cannot be multiplied", "normalized_shape", "Given groups"): (
        "Give as many columns as the first layer takes, or change that layer."
    ),
    (
        "dtype",
        "scalar type",
        "not implemented for",
        "can't be cast",
        "same type",
        "Float",
        "Long",
    ): ("Cast them with Spark: df.withColumn(name, F.col(name).cast('float'))."),
}


def as_taken(
    built: Built, plan: TensorPlan, fixed: frozenset[str], predictor: Predictor | None = None
) -> TensorPlan:
    """The layout in which model and loss can take the tensors.

    Args:
        built: With its loss.
        plan: Features, and targets if there are any.
        fixed: Columns whose type the user has chosen.
        predictor: Tried in the place of the model.

    Raises:
        ColumnError: No reading of the columns fits.
    """
    if built.operator is not None:  # the user's own code decides what is done with them
        return plan
    real = float_dtype(built.model)
    plan = replace(plan, labels=_labels(built.loss, plan.labels, fixed, real))
    if any(spec.shape is None or spec.dtype is None for spec in plan.features):
        return plan
    tried: Callable[[Sequence[np.ndarray]], Any]
    tried = predictor or (lambda arrays: built.model(*map(torch.from_numpy, arrays)))
    features, output = _features(built.model, tried, plan.features, fixed, real)
    plan = replace(plan, features=features)
    weights = None if plan.weight is None else torch.ones(_ROWS)
    if output is None or (built.loss is None and weights is None):
        return plan
    if built.loss is None:
        weigh_loss(built, output, (), _ROWS, weights)
    if built.loss is None or not plan.labels:
        return plan
    return replace(plan, labels=_compared(built, output, plan.labels, weights, fixed, real))


def _labels(
    loss: Any, labels: Sequence[TensorSpec], fixed: frozenset[str], real: str
) -> tuple[TensorSpec, ...]:
    """Targets as the losses of torch take them."""
    losses = loss.losses if isinstance(loss, LossPerOutput) else [loss] * len(labels)
    if len(losses) != len(labels):
        return tuple(labels)
    return tuple(_label(one, spec, fixed, real) for one, spec in zip(losses, labels, strict=True))


def _label(loss: Any, spec: TensorSpec, fixed: frozenset[str], real: str) -> TensorSpec:
    # One number for a row is a class; several are the probabilities of classes.
    if type(loss) in BY_CLASS and spec.shape == () and is_real(spec):
        return as_type(spec, "int64", fixed)
    if type(loss) in ELEMENTWISE and spec.dtype is not None and not is_real(spec):
        return as_type(spec, real, fixed)
    return spec


def _features(
    model: nn.Module,
    call: Callable[[Sequence[np.ndarray]], Any],
    features: tuple[TensorSpec, ...],
    fixed: frozenset[str],
    real: str,
) -> tuple[tuple[TensorSpec, ...], Any]:
    """Features as the model takes them, and its output for a few rows; None if it is not known."""
    failed: list[BaseException] = []
    for tried in readings(features, partial(other_features, fixed=fixed, real=real)):
        output, error = _attempt(model, call, tried)
        if error is None:
            return tried, output
        failed.append(error)
    _refuse(failed, features)
    return features, None


def _compared(
    built: Built,
    output: Any,
    labels: tuple[TensorSpec, ...],
    weights: torch.Tensor | None,
    fixed: frozenset[str],
    real: str,
) -> tuple[TensorSpec, ...]:
    """Targets as another loss takes them.

    Raises:
        RowLossError: Rows have weights, and it is not one of rows.
    """
    failed: list[BaseException] = []
    try:  # a loss may count its calls
        built = replace(built, loss=copy.deepcopy(built.loss))
    except Exception:  # noqa: BLE001 - what cannot be copied is not tried
        return labels
    for tried in readings(labels, partial(other_types, fixed=fixed, real=real)):
        if any(spec.shape is None or spec.dtype is None for spec in tried):
            return labels
        try:
            with torch.no_grad():
                targets = [torch.from_numpy(rows) for rows in _rows(tried)]
                weigh_loss(built, output, targets, _ROWS, weights)
        except RowLossError:
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the user's own loss
            failed.append(exc)
        else:
            return tried
    _refuse(failed, labels)
    return labels


def _attempt(
    model: nn.Module, call: Callable[[Sequence[np.ndarray]], Any], features: Sequence[TensorSpec]
) -> tuple[Any, BaseException | None]:
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with evaluating(model), torch.random.fork_rng(devices=[]):
            output = call(_rows(features))
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the user's own model
        return None, exc
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
    first = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(first, torch.Tensor | np.ndarray) and first.ndim and len(first) != _ROWS:
        return None, ValueError("rows were taken for columns")
    return output, None


def _rows(specs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """Rows of zeros; any number would do where only types and shapes are asked for."""
    return [np.zeros((_ROWS, *(s.shape or ())), s.dtype) for s in specs]


def _refuse(failed: Sequence[BaseException], specs: Sequence[TensorSpec]) -> None:
    """Tell of an error that the made-up numbers have no part in.

    Raises:
        ColumnError: There is one.
    """
    for words, remedy in _REMEDIES.items():
        for error in failed:
            if isinstance(error, RuntimeError | TypeError) and any(w in str(error) for w in words):
                raise refusal(error, specs, "torch", remedy) from None
