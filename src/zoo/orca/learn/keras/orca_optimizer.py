"""Orca's optimizers as those of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.optimizers.schedule import Default

__all__ = ["keras_optimizer"]

# Of single precision: less, as Adamax has it by default, would count as 0, and 0 be divided by 0.
_LEAST = float(np.finfo(np.float32).tiny)


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
            return optimizers.Adam(_rate(spec), epsilon=float(spec.epsilon), **betas)
        case orca.Adamax():
            betas = {"beta_1": float(spec.beta1), "beta_2": float(spec.beta2)}
            return optimizers.Adamax(_rate(spec), epsilon=max(float(spec.epsilon), _LEAST), **betas)
        case orca.Adagrad(weightdecay=0.0):
            start = {"initial_accumulator_value": 0.0, "epsilon": 1e-10}
            return optimizers.Adagrad(_rate(spec), **start)
        case orca.Adadelta():
            known = {"rho": float(spec.decayrate), "epsilon": float(spec.epsilon)}
            return optimizers.Adadelta(1.0, **known)
        case orca.RMSprop():
            known = {"rho": float(spec.decayrate), "epsilon": float(spec.epsilon)}
            return optimizers.RMSprop(_rate(spec), **known)
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
