"""Orca's optimizers as operations of a graph, by the rules that torch's have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca

__all__ = ["apply_orca"]

v1 = tf.compat.v1

Rule = Callable[..., tuple[Any, dict[str, Any]]]
"""Of settings, rate, updates done before, weights, gradient and memory: the step, and what is
remembered from now on."""


def apply_orca(spec: orca.Optimizer, pairs: Sequence[tuple[Any, Any]], rate: Any) -> Any:
    """The operation that updates variables.

    Args:
        spec: The settings.
        pairs: Gradients, which may be sparse, and their variables.
        rate: The tensor with the rate of the update.

    Raises:
        InputError: The settings are of no optimizer known here.
        NotYetError: They cannot be had in a graph.
    """
    rule, first = _rule(spec)
    done = v1.Variable(0, dtype=tf.int64, trainable=False, name="orca_updates", use_resource=True)
    before = done.read_value()
    assigned = []
    for gradient, variable in pairs:
        weights, gradient = variable.read_value(), tf.convert_to_tensor(gradient)
        slots = {
            name: v1.Variable(
                tf.fill(variable.shape, tf.constant(value, variable.dtype.base_dtype)),
                trainable=False,
                name=f"{variable.op.name}/{type(spec).__name__}_{name}",
                use_resource=True,
            )
            for name, value in first.items()
        }
        memory = {name: slot.read_value() for name, slot in slots.items()}
        real = weights.dtype
        step, after = rule(
            spec, tf.cast(rate, real), tf.cast(before, real), weights, gradient, memory
        )
        assigned += [v1.assign(slots[name], value) for name, value in after.items()]
        assigned.append(v1.assign(variable, weights - step))
    with tf.control_dependencies(assigned):
        return done.assign_add(1, read_value=False)


def _rule(spec: orca.Optimizer) -> tuple[Rule, dict[str, float]]:
    """The rule, and what its memory begins with."""
    if isinstance(spec, orca.SGD):
        for name in ("learningrates", "weightdecays"):
            if getattr(spec, name) is not None:
                raise NotYetError(
                    "one rate and one penalty for all weights",
                    f"SGD({name}=...)",
                    "Use an optimizer of tf.compat.v1.train.",
                )
        return _sgd, {"momentum": 0.0} if spec.momentum else {}
    if isinstance(spec, orca.Ftrl):
        return _ftrl, {"square": float(spec.initial_accumulator_value), "linear": 0.0}
    if isinstance(spec, orca.LBFGS):
        raise NotYetError(
            "an optimizer that takes one gradient for each update",
            "LBFGS, which evaluates the loss several times",
            "Use Adam or SGD.",
        )
    for kind, (rule, memory) in _RULES.items():
        if isinstance(spec, kind):
            return rule, dict.fromkeys(memory, 0.0)
    raise InputError(
        "an optimizer of zoo.orca.learn.optimizers", type(spec).__name__,
        "Use one that is there, or one of tf.compat.v1.train.",
    )  # fmt: skip


def _sgd(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    g = g + spec.weightdecay * w if spec.weightdecay else g
    if not spec.momentum:
        return rate * g, {}
    moved = spec.momentum * m["momentum"] + (1 - spec.effective_dampening) * g
    moved = tf.where(tf.equal(done, 0), g, moved)
    return rate * (g + spec.momentum * moved if spec.nesterov else moved), {"momentum": moved}


def _adam(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    mean = spec.beta1 * m["mean"] + (1 - spec.beta1) * g
    square = spec.beta2 * m["square"] + (1 - spec.beta2) * g * g
    size = tf.sqrt(square) / tf.sqrt(_missing(spec.beta2, done)) + spec.epsilon
    step = rate / _missing(spec.beta1, done) * mean / size
    return step, {"mean": mean, "square": square}


def _adamax(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    mean = spec.beta1 * m["mean"] + (1 - spec.beta1) * g
    # What the type does not hold at full precision may be taken for 0: then 0 / 0 would be.
    tiny = np.finfo(np.float64 if w.dtype == tf.float64 else np.float32).tiny
    least = max(float(spec.epsilon), float(tiny))
    largest = tf.maximum(spec.beta2 * m["largest"], tf.abs(g) + least)
    return rate / _missing(spec.beta1, done) * mean / largest, {"mean": mean, "largest": largest}


def _adagrad(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    g = g + spec.weightdecay * w if spec.weightdecay else g
    square = m["square"] + g * g
    return rate * g / (tf.sqrt(square) + 1e-10), {"square": square}


def _adadelta(
    spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any
) -> tuple[Any, dict[str, Any]]:
    square = spec.decayrate * m["square"] + (1 - spec.decayrate) * g * g
    step = tf.sqrt(m["moved"] + spec.epsilon) / tf.sqrt(square + spec.epsilon) * g
    moved = spec.decayrate * m["moved"] + (1 - spec.decayrate) * step * step
    return rate * step, {"square": square, "moved": moved}


def _rmsprop(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    square = spec.decayrate * m["square"] + (1 - spec.decayrate) * g * g
    return rate * g / (tf.sqrt(square) + spec.epsilon), {"square": square}


def _ftrl(spec: Any, rate: Any, done: Any, w: Any, g: Any, m: Any) -> tuple[Any, dict[str, Any]]:
    power = -spec.learningrate_power
    square = m["square"] + g * g
    linear = m["linear"] + g + 2 * spec.l2_shrinkage_regularization_strength * w
    linear -= (square**power - m["square"] ** power) / rate * w
    quadratic = square**power / rate + 2 * spec.l2_regularization_strength
    l1 = tf.constant(spec.l1_regularization_strength, w.dtype)
    # A weight that never had a gradient may have 0 / 0 here, and is 0.
    moved = tf.math.divide_no_nan(tf.sign(linear) * l1 - linear, quadratic)
    new = tf.where(tf.abs(linear) > l1, moved, tf.zeros_like(w))
    return w - new, {"square": square, "linear": linear}


def _missing(beta: float, done: Any) -> Any:
    """What a running mean that began with 0 has not seen yet, before the update is counted."""
    return 1 - tf.constant(beta, done.dtype) ** (done + 1)


_RULES: dict[type[orca.Optimizer], tuple[Rule, tuple[str, ...]]] = {
    orca.Adam: (_adam, ("mean", "square")),
    orca.Adamax: (_adamax, ("mean", "largest")),
    orca.Adagrad: (_adagrad, ("square",)),
    orca.Adadelta: (_adadelta, ("square", "moved")),
    orca.RMSprop: (_rmsprop, ("square",)),
}
