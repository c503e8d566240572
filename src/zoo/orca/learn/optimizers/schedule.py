"""How the learning rate moves, as a function of the update's number, for any framework.

`SGD` takes a schedule; iterations count from 0, the first update::

    schedule = SequentialSchedule(100).add(Warmup(0.01), 50).add(Poly(2, 900), 900)
    SGD(0.1, learningrate_schedule=schedule)
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from numbers import Integral, Real
from typing import Any

from zoo.errors import InputError

__all__ = [
    "Default",
    "Exponential",
    "MultiStep",
    "Plateau",
    "Poly",
    "Scheduler",
    "SequentialSchedule",
    "Step",
    "Warmup",
]


class Scheduler:
    """Base of the schedules. One of your own overrides `rate`.

    Most are functions of the iteration. `Plateau` also looks at how training goes: after each
    epoch `observe` tells it, and `state` is what it has to remember.
    """

    def rate(self, iteration: int, base: float) -> float:
        """Return the learning rate of an update.

        Args:
            iteration: Updates done before it.
            base: The optimizer's own rate.
        """
        raise NotImplementedError

    def get_scheduler(self) -> Scheduler:
        """Return what optimizers take, which is this very schedule."""
        return self

    def with_decay(self, decay: float) -> Scheduler:
        """Return this schedule with the optimizer's own decay wherever it says `Default()`.

        Args:
            decay: The `learningrate_decay` of the optimizer.
        """
        return self

    def monitors(self) -> frozenset[str]:
        """Return which of `Loss` and `score` it wants to observe."""
        return frozenset()

    def observe(self, iteration: int, values: Mapping[str, float]) -> None:
        """Take note of an epoch that ended.

        Args:
            iteration: Updates done.
            values: The epoch's `Loss`, and its `score` where there is one.

        Raises:
            InputError: A value is missing that the schedule watches.
        """

    def state(self) -> dict[str, Any]:
        """Return what to carry over to a training that continues: plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave.

        Args:
            state: That.
        """


@dataclass(frozen=True)
class Default(Scheduler):
    """A constant rate, or the optimizer's own decay: base / (1 + iteration * decay).

    Attributes:
        decay: Comes from the optimizer's `learningrate_decay`.
    """

    decay: float = 0.0

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        return base / (1 + iteration * self.decay)

    def with_decay(self, decay: float) -> Default:
        """Return one with this decay."""
        return Default(decay)


@dataclass(frozen=True)
class Poly(Scheduler):
    """From the base rate to 0 along base * (1 - iteration / max_iteration) ** power.

    Attributes:
        power: 1 is a straight line.
        max_iteration: The rate is 0 from here on.
    """

    power: float
    max_iteration: int

    def __post_init__(self) -> None:
        _require_from_zero(self, "power")
        _require_count(self, "max_iteration")

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        if iteration > self.max_iteration:
            return 0.0
        return float(base * (1.0 - iteration / self.max_iteration) ** self.power)


@dataclass(frozen=True)
class Exponential(Scheduler):
    """One factor for every so many iterations: base * decay_rate ** (iteration / decay_step).

    Attributes:
        decay_step: Iterations to the whole factor.
        decay_rate: The factor.
        stair_case: Change at every `decay_step` only.
    """

    decay_step: int
    decay_rate: float
    stair_case: bool = False

    def __post_init__(self) -> None:
        _require_count(self, "decay_step")
        _require_from_zero(self, "decay_rate")

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        whole = iteration // self.decay_step
        power = whole if self.stair_case else iteration / self.decay_step
        return float(base * self.decay_rate**power)


@dataclass(frozen=True)
class Step(Scheduler):
    """One factor `gamma` after every `step_size` iterations.

    Attributes:
        step_size: Iterations at one rate.
        gamma: The factor.
    """

    step_size: int
    gamma: float

    def __post_init__(self) -> None:
        _require_count(self, "step_size")
        _require_from_zero(self, "gamma")

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        return float(base * self.gamma ** (iteration // self.step_size))


@dataclass(frozen=True)
class MultiStep(Scheduler):
    """One factor `gamma` after each of the listed iterations.

    Attributes:
        step_sizes: The iterations, in any order.
        gamma: The factor.
    """

    step_sizes: Iterable[int]
    gamma: float
    _sorted: tuple[int, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _require_from_zero(self, "gamma")
        steps = tuple(self.step_sizes) if isinstance(self.step_sizes, Iterable) else ("",)
        if not all(isinstance(step, Integral) and step >= 0 for step in steps):
            raise _unusable(self, "step_sizes", "a list of iterations from 0 up")
        object.__setattr__(self, "step_sizes", steps)
        object.__setattr__(self, "_sorted", tuple(sorted(steps)))

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        return float(base * self.gamma ** bisect_right(self._sorted, iteration))


@dataclass(frozen=True)
class Warmup(Scheduler):
    """A rate that grows: base + delta * iteration. Follow it by another in `SequentialSchedule`.

    Attributes:
        delta: What each iteration adds.
    """

    delta: float

    def __post_init__(self) -> None:
        if not isinstance(self.delta, Real):
            raise _unusable(self, "delta", "a number")

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        return base + self.delta * iteration


@dataclass
class Plateau(Scheduler):
    """A rate that falls when training stops getting better.

    It falls after more than `patience` epochs in a row that brought no improvement, and then the
    count starts anew.

    Attributes:
        monitor: `Loss`, or `score`: the first metric on the validation data.
        factor: The rate is multiplied by it, 0 to below 1.
        patience: Epochs without improvement that are borne.
        mode: `min` where less is better, `max` where more is.
        epsilon: An improvement is at least so much.
        cooldown: Epochs after a fall that are not counted.
        min_lr: The rate does not fall below.
    """

    monitor: str
    factor: float = 0.1
    patience: int = 10
    mode: str = "min"
    epsilon: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0
    _best: float | None = field(init=False, repr=False, default=None)
    _bad: int = field(init=False, repr=False, default=0)
    _resting: int = field(init=False, repr=False, default=0)
    _falls: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        _require_from_zero(self, "factor", "patience", "epsilon", "cooldown", "min_lr")
        if self.factor >= 1:
            raise _unusable(self, "factor", "a number below 1")
        if self.monitor not in ("Loss", "score"):
            raise _unusable(self, "monitor", "'Loss' or 'score'")
        if self.mode not in ("min", "max"):
            raise _unusable(self, "mode", "'min' or 'max'")

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update, as far as the epochs observed so far tell."""
        return float(min(base, max(base * self.factor**self._falls, self.min_lr)))

    def monitors(self) -> frozenset[str]:
        """Return what it watches."""
        return frozenset([self.monitor])

    def observe(self, iteration: int, values: Mapping[str, float]) -> None:
        """Take note of an epoch that ended."""
        if self.monitor not in values:
            raise InputError(
                f"a {self.monitor} of each epoch for Plateau({self.monitor!r})",
                f"{', '.join(values) or 'no values'}",
                "Give fit validation data, and the estimator metrics, or watch 'Loss'.",
            )
        value = float(values[self.monitor])
        if self._is_better(value):
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._resting:
            self._resting, self._bad = self._resting - 1, 0
        if self._bad > self.patience:
            self._falls, self._resting, self._bad = self._falls + 1, int(self.cooldown), 0

    def _is_better(self, value: float) -> bool:
        if self.mode == "min":
            return value < (inf if self._best is None else self._best) - self.epsilon
        return value > (-inf if self._best is None else self._best) + self.epsilon

    def state(self) -> dict[str, Any]:
        """Return what it remembers of the epochs."""
        return {
            "best": self._best,
            "bad": self._bad,
            "resting": self._resting,
            "falls": self._falls,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        self._best, self._bad = state["best"], state["bad"]
        self._resting, self._falls = state["resting"], state["falls"]


class SequentialSchedule(Scheduler):
    """Schedules one after another.

    Each begins with iteration 0 at the rate that the one before has come to, so that there is no
    jump between them. The last one goes on for good.

    Args:
        iteration_per_epoch: Updates in an epoch. A `Plateau` among the schedules counts the
            epochs that it ran in whole.
    """

    def __init__(self, iteration_per_epoch: int) -> None:
        self.iteration_per_epoch = iteration_per_epoch
        _require_count(self, "iteration_per_epoch")
        self._parts: list[tuple[Scheduler, int]] = []

    def add(self, scheduler: Scheduler, max_iteration: int) -> SequentialSchedule:
        """Append a schedule.

        Args:
            scheduler: What comes next.
            max_iteration: Iterations that it runs for.

        Returns:
            This schedule, for the next `add`.

        Raises:
            InputError: One of the two is something else.
        """
        if not isinstance(scheduler, Scheduler) or scheduler is self:
            raise InputError("a schedule to add", repr(scheduler), "Add Warmup(...) for example.")
        if not _is_count(max_iteration):
            raise InputError(
                "max_iteration as a whole number from 1 up",
                repr(max_iteration),
                "Say for how many iterations the schedule runs.",
            )
        self._parts.append((scheduler, int(max_iteration)))
        return self

    def rate(self, iteration: int, base: float) -> float:
        """Return the rate of an update."""
        for scheduler, length in self._parts[:-1]:
            if iteration < length:
                return scheduler.rate(iteration, base)
            base, iteration = scheduler.rate(length, base), iteration - length
        return self._parts[-1][0].rate(iteration, base) if self._parts else base

    def with_decay(self, decay: float) -> SequentialSchedule:
        """Return the same sequence with this decay in its parts."""
        made = copy.copy(self)
        made._parts = [(part.with_decay(decay), length) for part, length in self._parts]
        return made

    def monitors(self) -> frozenset[str]:
        """Return what any of its parts watches."""
        return frozenset().union(*(part.monitors() for part, _ in self._parts))

    def observe(self, iteration: int, values: Mapping[str, float]) -> None:
        """Tell the part that ran through the epoch that ended."""
        for k, (part, length) in enumerate(self._parts):
            if iteration <= length or k == len(self._parts) - 1:
                if iteration >= self.iteration_per_epoch:
                    part.observe(iteration, values)
                return
            iteration -= length

    def state(self) -> dict[str, Any]:
        """Return what its parts remember."""
        return {"parts": [part.state() for part, _ in self._parts]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        for (part, _), remembered in zip(self._parts, state["parts"], strict=True):
            part.load_state(remembered)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _require_count(schedule: Scheduler, name: str) -> None:
    if not _is_count(getattr(schedule, name)):
        raise _unusable(schedule, name, "a whole number from 1 up")


def _require_from_zero(schedule: Scheduler, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if not (isinstance(value, Real) and 0 <= float(value) < inf):
            raise _unusable(schedule, name, "a number from 0 up")


def _unusable(schedule: Scheduler, name: str, wanted: str) -> InputError:
    return InputError(
        f"{type(schedule).__name__}({name}=...) with {wanted}",
        repr(getattr(schedule, name)),
        "Change it, or leave the schedule out.",
    )
