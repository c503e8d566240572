"""The settings of each optimizer. Argument order and defaults are those of Analytics Zoo."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from typing import Any

from zoo.errors import InputError
from zoo.orca.learn.optimizers.schedule import Default, Scheduler

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "Optimizer",
    "ParallelAdam",
    "RMSprop",
    "is_orca_optimizer",
]

_MAX_DOUBLE = sys.float_info.max


class Optimizer:
    """Base of the optimizers: settings without a framework."""

    def get_optimizer(self) -> Optimizer:
        """Return what estimators take, which is this very record."""
        return self

    def rate_schedule(self) -> Scheduler | None:
        """Return how the learning rate moves from update to update; None where it stays."""
        return None

    def _require_from_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= float(value) <= _MAX_DOUBLE):
                raise self._unusable(name, "a number from 0 up")

    def _require_fraction(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= float(value) < 1):
                raise self._unusable(name, "a number from 0 to below 1")

    def _unusable(self, name: str, wanted: str) -> InputError:
        return InputError(
            f"{type(self).__name__}({name}=...) with {wanted}",
            repr(getattr(self, name)),
            "Change it, or leave it out for the default.",
        )


class _Decaying(Optimizer):
    """An optimizer whose rate falls as learningrate / (1 + update * learningrate_decay)."""

    learningrate_decay: float

    def rate_schedule(self) -> Scheduler | None:
        return Default(self.learningrate_decay) if self.learningrate_decay else None


@dataclass(frozen=True)
class SGD(_Decaying):
    """Stochastic gradient descent, with momentum where asked for.

    Attributes:
        learningrate: The rate at the first update.
        learningrate_decay: Used where the schedule is None or `Default()`.
        weightdecay: L2 penalty, added to the gradient.
        momentum: Share of the last direction that is kept.
        dampening: Share of the gradient that does not enter the direction. The default means the
            same as momentum.
        nesterov: Look ahead along the direction. Needs a momentum and `dampening=0.0`.
        learningrate_schedule: A schedule, or None: constant but for `learningrate_decay`.
        learningrates: A rate for each weight.
        weightdecays: A penalty for each weight.
    """

    learningrate: float = 1e-3
    learningrate_decay: float = 0.0
    weightdecay: float = 0.0
    momentum: float = 0.0
    dampening: float = _MAX_DOUBLE
    nesterov: bool = False
    learningrate_schedule: Scheduler | None = None
    learningrates: Any = None
    weightdecays: Any = None

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "learningrate_decay", "weightdecay", "momentum")
        self._require_from_zero("dampening")
        if not isinstance(self.learningrate_schedule, Scheduler | None):
            raise self._unusable("learningrate_schedule", "a schedule")
        if self.nesterov and not (self.momentum and self.effective_dampening == 0):
            raise InputError(
                "a momentum and zero dampening with nesterov=True",
                f"momentum={self.momentum}, dampening={self.effective_dampening}",
                "Nesterov momentum requires a momentum and zero dampening: pass momentum=0.9, "
                "dampening=0.0 for example.",
            )

    @property
    def effective_dampening(self) -> float:
        """The dampening, with its default resolved."""
        return self.momentum if self.dampening == _MAX_DOUBLE else self.dampening

    def rate_schedule(self) -> Scheduler | None:
        """Return the schedule, with the optimizer's own decay where it says `Default()`."""
        if self.learningrate_schedule is None:
            return super().rate_schedule()
        return self.learningrate_schedule.with_decay(self.learningrate_decay)


@dataclass(frozen=True)
class Adagrad(_Decaying):
    """Rates that shrink with the sum of squared gradients of each weight.

    Attributes:
        learningrate: The rate at the first update.
        learningrate_decay: The rate at update i is learningrate / (1 + i * decay).
        weightdecay: L2 penalty, added to the gradient.
    """

    learningrate: float = 1e-3
    learningrate_decay: float = 0.0
    weightdecay: float = 0.0

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "learningrate_decay", "weightdecay")


@dataclass(frozen=True)
class Adam(_Decaying):
    """Rates from running moments of the gradient.

    Attributes:
        learningrate: The rate at the first update.
        learningrate_decay: The rate at update i is learningrate / (1 + i * decay).
        beta1: What the running mean keeps at each update.
        beta2: What the running mean of squares keeps.
        epsilon: Added to the root of the mean of squares.
    """

    learningrate: float = 1e-3
    learningrate_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "learningrate_decay", "epsilon")
        self._require_fraction("beta1", "beta2")


@dataclass(frozen=True)
class ParallelAdam(Adam):
    """`Adam` under another name.

    Attributes:
        parallel_num: Taken for existing programs. The framework decides how many threads update.
    """

    parallel_num: int = -1


@dataclass(frozen=True)
class Adamax(Optimizer):
    """Adam with the largest recent gradient in place of the mean of squares.

    Attributes:
        learningrate: The rate.
        beta1: What the running mean keeps at each update.
        beta2: What the running maximum keeps.
        epsilon: Added to the size of the gradient: a gradient of zero moves nothing.
    """

    learningrate: float = 0.002
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-38

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "epsilon")
        self._require_fraction("beta1", "beta2")


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Steps in proportion to recent steps: no rate to choose.

    Attributes:
        decayrate: What the running means of squares keep at each update.
        epsilon: Added to those means.
    """

    decayrate: float = 0.9
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        self._require_from_zero("epsilon")
        self._require_fraction("decayrate")


@dataclass(frozen=True)
class RMSprop(_Decaying):
    """Rates that shrink with the recent size of each weight's gradient.

    Attributes:
        learningrate: The rate at the first update.
        learningrate_decay: The rate at update i is learningrate / (1 + i * decay).
        decayrate: What the running mean of squares keeps at each update.
        epsilon: Added to the root of that mean.
    """

    learningrate: float = 1e-2
    learningrate_decay: float = 0.0
    decayrate: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "learningrate_decay", "epsilon")
        self._require_fraction("decayrate")


@dataclass(frozen=True)
class Ftrl(Optimizer):
    """Follow the regularised leader, for wide and sparse models.

    Attributes:
        learningrate: The rate, above 0.
        learningrate_power: How the rate falls with the sum of squares; 0 or less, 0 is constant.
        initial_accumulator_value: What that sum starts from.
        l1_regularization_strength: L1 penalty: small weights become exactly 0.
        l2_regularization_strength: L2 penalty that steadies the steps.
        l2_shrinkage_regularization_strength: L2 penalty on the weights, as part of the loss.
    """

    learningrate: float = 1e-3
    learningrate_power: float = -0.5
    initial_accumulator_value: float = 0.1
    l1_regularization_strength: float = 0.0
    l2_regularization_strength: float = 0.0
    l2_shrinkage_regularization_strength: float = 0.0

    def __post_init__(self) -> None:
        self._require_from_zero("learningrate", "initial_accumulator_value")
        self._require_from_zero("l1_regularization_strength", "l2_regularization_strength")
        self._require_from_zero("l2_shrinkage_regularization_strength")
        if not self.learningrate:
            raise self._unusable("learningrate", "a number above 0")
        if not (isinstance(self.learningrate_power, Real) and self.learningrate_power <= 0):
            raise self._unusable("learningrate_power", "a number of 0 or less")


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """A quasi-Newton method over the whole data. A name only: no framework here runs it yet.

    Attributes:
        max_iter: Iterations for each call.
        max_eval: Evaluations of the function for each call.
        tolfun: End where the gradient is smaller.
        tolx: End where the change is smaller.
        ncorrection: Corrections remembered.
        learningrate: Length of a step.
        verbose: Report on the way.
        linesearch: A line search.
        linesearch_options: Its options.
    """

    max_iter: int = 20
    max_eval: float = _MAX_DOUBLE
    tolfun: float = 1e-5
    tolx: float = 1e-9
    ncorrection: int = 100
    learningrate: float = 1.0
    verbose: bool = False
    linesearch: Any = None
    linesearch_options: Any = None


def is_orca_optimizer(value: object) -> bool:
    """Tell whether this is one of the records here."""
    return isinstance(value, Optimizer)
