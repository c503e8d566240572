"""Orca's optimizers as those of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.optimizers.schedule import Default

__all__ = ["keras_optimizer"]

# Of single precision: less, as Adamax has it by default, would count as 0, and 0 be divided by 0.
_LEAST = float(np.finfo(np.float32).tiny)
_registered = keras.saving.register_keras_serializable(package="zoo")


# Keras places epsilon elsewhere than Orca and torch do, which shows where gradients are small.


@_registered
class OrcaAdam(keras.optimizers.Adam):  # type: ignore[misc] # Keras has no types
    """Adam with epsilon added to the corrected root (Kingma and Ba, 2015, algorithm 1)."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See `keras.Optimizer`."""
        kind, at = variable.dtype, self._get_variable_index(variable)
        rate, gradient = ops.cast(learning_rate, kind), ops.cast(gradient, kind)
        step, m, v = ops.cast(self.iterations + 1, kind), self._momentums[at], self._velocities[at]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        mean = m / (1 - ops.power(ops.cast(self.beta_1, kind), step))
        root = ops.sqrt(v / (1 - ops.power(ops.cast(self.beta_2, kind), step)))
        self.assign_sub(variable, rate * mean / (root + self.epsilon))


@_registered
class OrcaAdamax(keras.optimizers.Adamax):  # type: ignore[misc] # see above
    """Adamax with epsilon added to the size of the gradient, as torch has it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See `keras.Optimizer`."""
        kind, at = variable.dtype, self._get_variable_index(variable)
        rate, gradient = ops.cast(learning_rate, kind), ops.cast(gradient, kind)
        step, m, u = ops.cast(self.iterations + 1, kind), self._m[at], self._u[at]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign(u, ops.maximum(self.beta_2 * u, ops.abs(gradient) + self.epsilon))
        rate = rate / (1 - ops.power(ops.cast(self.beta_1, kind), step))
        self.assign_sub(variable, rate * (m / u))


@_registered
class OrcaAdagrad(keras.optimizers.Adagrad):  # type: ignore[misc] # see above
    """Adagrad with epsilon added to the root of the sum."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See `keras.Optimizer`."""
        kind, total = variable.dtype, self._accumulators[self._get_variable_index(variable)]
        rate, gradient = ops.cast(learning_rate, kind), ops.cast(gradient, kind)
        self.assign_add(total, ops.square(gradient))
        self.assign_sub(variable, rate * gradient / (ops.sqrt(total) + self.epsilon))


@_registered
class OrcaRMSprop(keras.optimizers.RMSprop):  # type: ignore[misc] # see above
    """RMSprop with epsilon added to the root of the mean."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See `keras.Optimizer`."""
        kind, mean = variable.dtype, self._velocities[self._get_variable_index(variable)]
        rate, gradient = ops.cast(learning_rate, kind), ops.cast(gradient, kind)
        self.assign_add(mean, (ops.square(gradient) - mean) * (1 - self.rho))
        self.assign_sub(variable, rate * gradient / (ops.sqrt(mean) + self.epsilon))


def keras_optimizer(given: Any) -> keras.Optimizer:
    """An optimizer of Keras, of what was given in its place.

    Args:
        given: An optimizer of Keras, its name, or one of `zoo.orca.learn.optimizers`.

    Raises:
        InputError: It is none.
        NotYetError: Keras does not compute it in the same way.
    """
    if isinstance(given, orca.Optimizer):
        return _of_orca(given)
    try:
        made = keras.optimizers.get(given)
    except (ValueError, TypeError):
        made = None
    if not isinstance(made, keras.Optimizer):
        raise InputError(
            "an optimizer of Keras, or of zoo.orca.learn.optimizers", repr(given),
            "Pass keras.optimizers.Adam(1e-3), for example.",
        )  # fmt: skip
    return made


def _of_orca(spec: orca.Optimizer) -> keras.Optimizer:
    optimizers = keras.optimizers
    match spec:
        case orca.SGD():
            return _sgd(spec)
        case orca.Adam():
            betas = {"beta_1": float(spec.beta1), "beta_2": float(spec.beta2)}
            return OrcaAdam(_rate(spec), epsilon=float(spec.epsilon), **betas)
        case orca.Adamax():
            betas = {"beta_1": float(spec.beta1), "beta_2": float(spec.beta2)}
            return OrcaAdamax(_rate(spec), epsilon=max(float(spec.epsilon), _LEAST), **betas)
        case orca.Adagrad(weightdecay=0.0):
            start = {"initial_accumulator_value": 0.0, "epsilon": 1e-10}
            return OrcaAdagrad(_rate(spec), **start)
        case orca.Adadelta():
            known = {"rho": float(spec.decayrate), "epsilon": float(spec.epsilon)}
            return optimizers.Adadelta(1.0, **known)
        case orca.RMSprop():
            known = {"rho": float(spec.decayrate), "epsilon": float(spec.epsilon)}
            return OrcaRMSprop(_rate(spec), **known)
        case orca.Ftrl():
            return optimizers.Ftrl(
                _rate(spec),
                learning_rate_power=float(spec.learningrate_power),
                initial_accumulator_value=float(spec.initial_accumulator_value),
                l1_regularization_strength=float(spec.l1_regularization_strength),
                l2_regularization_strength=float(spec.l2_regularization_strength),
                l2_shrinkage_regularization_strength=float(
                    spec.l2_shrinkage_regularization_strength
                ),
            )
    raise _not_yet(f"{type(spec).__name__} with these settings")


def _sgd(spec: orca.SGD) -> keras.Optimizer:
    several = spec.learningrates is not None or spec.weightdecays is not None
    if several or spec.weightdecay or (spec.momentum and spec.effective_dampening):
        raise _not_yet("SGD with a dampening, penalties, or rates of single weights")
    momentum = {"momentum": float(spec.momentum), "nesterov": bool(spec.nesterov)}
    return keras.optimizers.SGD(_rate(spec), **momentum)


def _rate(spec: Any) -> Any:
    """The rate, which may fall with each update."""
    schedule = getattr(spec, "learningrate_schedule", None)
    if schedule is not None and not isinstance(schedule, Default):
        raise _not_yet(f"the schedule {type(schedule).__name__}")
    rate, decay = float(spec.learningrate), float(getattr(spec, "learningrate_decay", 0.0))
    return keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay) if decay else rate


def _not_yet(received: str) -> NotYetError:
    return NotYetError(
        "an optimizer that Keras computes in the same way", received,
        "Give one of keras.optimizers, with a schedule of keras.optimizers.schedules.",
    )  # fmt: skip
