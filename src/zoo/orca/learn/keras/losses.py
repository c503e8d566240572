"""The loss of a batch as one number, and what the batch weighs in the mean over all ranks.

Losses of Keras are means over rows, or over what a mask leaves of them. Each tells which while it
is computed. Where rows have weights a mean is sum(weight * loss) / sum(weight) over rows, and over
valid entries where there is a mask: Keras itself divides by rows, so that its rates would have to
follow the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops, tree
from keras.src.backend import get_keras_mask
from keras.src.losses.loss import squeeze_or_expand_to_same_rank
from keras.src.trainers.compile_utils import CompileLoss, get_loss

from zoo.errors import InputError

__all__ = ["WeighedLoss", "adds_up", "require_reduction", "weighing"]


class WeighedLoss(keras.losses.Loss):  # type: ignore[misc] # Keras has no types
    """A loss that says what its batch weighs.

    Args:
        given: As it was given to `compile`: a name, a function, a loss.
        found: Gets, whenever the loss is computed, the sum of what valid entries weigh, or None
            where all entries of all rows are valid.
    """

    def __init__(self, given: Any, found: list[Any]) -> None:
        name = given if isinstance(given, str) else None
        name = name or getattr(given, "name", None) or getattr(given, "__name__", None)
        reduction = getattr(given, "reduction", "sum_over_batch_size")
        super().__init__(name=name, reduction=reduction)
        self._given, self._found = given, found

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of a batch.

        Args:
            y_true: Targets.
            y_pred: Outputs.
            sample_weight: Of the rows, shape (rows,), 1 on average; None for 1.
        """
        loss = get_loss(self._given, y_true, y_pred)
        y_true = _aligned(y_true, y_pred)
        if type(loss).__call__ is not keras.losses.Loss.__call__:
            self._found.append(None)
            return loss(y_true, y_pred, sample_weight)
        mask = get_keras_mask(y_pred)
        y_true, y_pred = (
            tree.map_structure(lambda v: ops.convert_to_tensor(v, dtype=loss.dtype), y)
            for y in (y_true, y_pred)
        )
        values = loss.call(y_true, y_pred)
        masks = [m for m in (mask, get_keras_mask(values)) if m is not None]
        values = ops.convert_to_tensor(values, dtype=loss.dtype)
        return self._reduced(values, sample_weight, masks, loss.dtype)

    def _reduced(self, values: Any, weights: Any, masks: list[Any], dtype: str) -> Any:
        rank = len(values.shape)
        if weights is not None:
            if not rank:
                raise InputError(
                    "a loss that gives each row its own, for rows with weights",
                    f"{self.name}, which gives one number for all of them",
                    "Return ops.mean(..., axis=-1) instead of ops.mean(...).",
                )
            weights = ops.reshape(ops.cast(weights, dtype), (-1, *(1,) * (rank - 1)))
        if not rank or (not masks and weights is None):
            self._found.append(None)
            return ops.sum(values) if self.reduction == "sum" else ops.mean(values)
        if not masks:
            self._found.append(None)
            values = values * weights
            return ops.sum(values) if self.reduction == "sum" else ops.mean(values)
        valid = ops.cast(masks[0], dtype)
        for mask in masks[1:]:
            valid = valid * ops.cast(mask, dtype)
        values, valid = squeeze_or_expand_to_same_rank(values, valid)
        if weights is not None:
            valid = valid * weights
        total = ops.sum(values * valid)
        if self.reduction == "sum":
            self._found.append(None)
            return total
        weight = ops.sum(valid)
        self._found.append(weight)
        return ops.divide_no_nan(total, weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The losses of the rows."""
        return get_loss(self._given, y_true, y_pred).call(y_true, y_pred)


def _aligned(y_true: Any, y_pred: Any) -> Any:
    """Targets (n,) of outputs (n, 1) as (n, 1): compared as they are, each row would meet all."""
    if tree.is_nested(y_true) or tree.is_nested(y_pred):
        return y_true
    short = len(y_pred.shape) - len(y_true.shape)
    if short == 1 and y_pred.shape[-1] == 1:
        return ops.expand_dims(y_true, -1)
    if short == -1 and y_true.shape[-1] == 1 and len(y_pred.shape) > 0:
        return ops.squeeze(y_true, -1)
    return y_true


@contextmanager
def weighing(model: keras.Model, found: list[Any]) -> Iterator[None]:
    """The losses of a compiled model say what they weigh; afterwards it is as it was before.

    Args:
        model: Compiled.
        found: Gets what they say.
    """
    given = model._compile_loss
    losses = [] if given is None else tree.flatten(given._user_loss)
    if losses and not any(isinstance(loss, WeighedLoss) for loss in losses):
        wrapped = tree.map_structure(
            lambda loss: None if loss is None else WeighedLoss(loss, found), given._user_loss
        )
        ours = CompileLoss(wrapped, given._user_loss_weights, output_names=given.output_names)
        model._compile_loss = ours
    try:
        yield
    finally:
        model._compile_loss = given


def _reductions(model: keras.Model) -> set[str | None]:
    given = model._compile_loss
    losses = [] if given is None else [loss for loss in tree.flatten(given._user_loss) if loss]
    return {getattr(loss, "reduction", "sum_over_batch_size") for loss in losses}


def adds_up(model: keras.Model) -> bool:
    """Whether the loss is a sum over rows, and not a mean."""
    return _reductions(model) == {"sum"}


def require_reduction(model: keras.Model) -> None:
    """Refuse a loss that is no number for a batch.

    Raises:
        InputError: It is none.
    """
    kinds = _reductions(model)
    if kinds & {None, "none"} or ("sum" in kinds and len(kinds) > 1):
        raise InputError(
            "losses with reduction='sum_over_batch_size', or all with 'sum'",
            " and ".join(f"reduction={kind!r}" for kind in sorted(kinds, key=str)),
            "Compile the model with losses of one reduction that makes a number of a batch.",
        )
