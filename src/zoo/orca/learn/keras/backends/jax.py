"""Keras on JAX: functions of all state, compiled for each number of rows that comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np

from zoo.orca.learn.keras.backends import Found, StepMetrics
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.gradients import clipped
from zoo.orca.learn.keras.outputs import outputs_of_model
from zoo.orca.learn.rank.array_batches import Arrays, Batch
from zoo.orca.learn.score.predict import Outputs
from zoo.orca.learn.steps import GradientLimits

__all__ = ["Steps", "start"]

Values = list[Any]


def start(threads: int) -> None:
    """Choose the threads of this process, before JAX begins to work in it."""
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(threads)


class Steps:
    """See `Backend`."""

    def __init__(
        self,
        built: Built,
        metrics: StepMetrics | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._built, self._metrics, self._limits = built, metrics, limits
        self._model, self._seeds = built.model, built.seeds()
        eager = built.model.run_eagerly or not built.model.jit_compile
        compiled: Callable[..., Any] = (lambda function: function) if eager else jax.jit
        self._gradients = compiled(jax.value_and_grad(self._scaled, has_aux=True))
        self._scored = compiled(self._loss, static_argnums=2) if not eager else self._loss
        self._outputs, self._apply = compiled(self._predicted), compiled(self._applied)

    def backward(self, batch: Batch, seeds: np.ndarray) -> Found:
        """See `Backend`."""
        for variable, seed in zip(self._seeds, seeds, strict=True):
            variable.assign(seed)
        given = _values(self._model.trainable_weights), _values(self._held())
        (_, (loss, weights, after)), gradients = self._gradients(*given, _parts(batch))
        _assign(self._changing(), after)
        return Found(float(loss), _numbers(weights), gradients)

    def update(self, gradients: Sequence[Any]) -> None:
        """See `Backend`; weights that took no part have gradients of zeros here, as in Keras."""
        weights, own = self._model.trainable_weights, self._built.optimizer.variables
        found = [
            np.zeros(w.shape, w.dtype) if g is None else g
            for w, g in zip(weights, gradients, strict=True)
        ]
        trained, after = self._apply(_values(weights), _values(own), found)
        _assign([*weights, *own], [*trained, *after])

    def score(self, batch: Batch) -> Found:
        """See `Backend`."""
        held = _values([*self._model.trainable_weights, *self._held()])
        loss, weights, after = self._scored(held, _parts(batch), False)
        _assign(self._changing(), after)
        return Found(float(loss), _numbers(weights))

    def forward(self, features: Arrays) -> Outputs:
        """See `Backend`."""
        return outputs_of_model(self._outputs(_values(self._model.variables), features))

    def numbers(self, gradient: Any) -> np.ndarray:
        """See `Backend`."""
        return np.asarray(gradient)

    def _changing(self) -> list[keras.Variable]:
        """What a forward pass changes."""
        found = {id(v): v for v in [*self._model.non_trainable_variables, *self._seeds]}
        measured = getattr(self._metrics, "variables", [])
        return [*found.values(), *measured]

    def _held(self) -> list[keras.Variable]:
        """All that a step reads besides the weights that are trained."""
        optimizer = self._built.optimizer
        return [*self._changing(), *([] if optimizer is None else optimizer.variables)]

    def _scaled(self, trained: Values, held: Values, parts: Any) -> tuple[Any, Any]:
        found, optimizer = self._loss([*trained, *held], parts, True), self._built.optimizer
        if optimizer is None:
            return found[0], found
        with keras.StatelessScope(zip(self._held(), held, strict=True)):
            return optimizer.scale_loss(found[0]), found

    def _loss(self, held: Values, parts: Any, training: bool) -> tuple[Any, list[Any], Values]:
        """Loss, what its losses weigh, and the values of `_changing` after it."""
        built, (features, targets, weights) = self._built, parts
        variables = [*self._model.trainable_weights, *self._held()]
        mapping = zip(variables, held, strict=True)
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            x = built.arguments(features)
            y_pred = built.called(x, training=training)
            y = built.wanted(targets, y_pred)
            loss, found = built.compute(x, y, y_pred, weights, training=training)
            if self._metrics is not None:
                self._metrics.update(y, y_pred, weights)
        return loss, found, [scope.get_current_value(v) for v in self._changing()]

    def _predicted(self, values: Values, features: Any) -> Any:
        with keras.StatelessScope(zip(self._model.variables, values, strict=True)):
            return self._built.predicted(self._built.arguments(features))

    def _applied(self, trained: Values, own: Values, gradients: list[Any]) -> tuple[Values, Values]:
        optimizer = self._built.optimizer
        if self._limits is not None:
            with keras.StatelessScope(zip(optimizer.variables, own, strict=True)):
                gradients = clipped(gradients, self._limits, optimizer.scale_loss(1.0))
        found: tuple[Values, Values] = optimizer.stateless_apply(own, gradients, trained)
        return found


def _values(variables: Sequence[keras.Variable]) -> Values:
    return [variable.value for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _parts(batch: Batch) -> tuple[Any, Any, Any]:
    return batch.features, batch.targets, batch.weights


def _numbers(weights: Sequence[Any]) -> list[float | None]:
    return [None if weight is None else float(weight) for weight in weights]
