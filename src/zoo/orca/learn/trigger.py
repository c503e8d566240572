"""Triggers: questions asked after each step of a fit. Is it time for a snapshot, for an end?"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError

__all__ = [
    "EveryEpoch",
    "EverySeconds",
    "MaxEpoch",
    "MaxIteration",
    "MaxScore",
    "MinLoss",
    "Moment",
    "SeveralIteration",
    "Trigger",
    "TriggerAnd",
    "TriggerOr",
]


@dataclass(frozen=True)
class Moment:
    """Where a fit is, after a step.

    Attributes:
        iteration: Steps done in all.
        epoch: Epochs done in all.
        epoch_ended: This step was the last one of its epoch.
        loss: Of this step.
        score: The newest validation result; None before the first.
        seconds: Since the trigger, or the combination that it is a part of, last fired, or since
            the fit began; losses of ranks do not set it back.
    """

    iteration: int
    epoch: int
    epoch_ended: bool
    loss: float
    score: float | None
    seconds: float


class Trigger(ABC):
    """Base of all triggers. Write your own with `fires`; it has to survive pickling."""

    @abstractmethod
    def fires(self, moment: Moment) -> bool:
        """Whether it is time. Asked once after each step.

        Args:
            moment: Where the fit is.
        """

    @staticmethod
    def convert_trigger(t: Any) -> Any:
        """Return the trigger that an argument means.

        Args:
            t: None, a trigger, or the text "EveryEpoch" in any case. Everything else is given
                back as it is.

        Raises:
            InputError: Another text.
        """
        if not isinstance(t, str):
            return t
        if t.lower() == "everyepoch":
            return EveryEpoch()
        raise InputError(
            'the text "EveryEpoch" or a trigger',
            repr(t),
            "Other triggers are objects, such as SeveralIteration(100).",
        )


@dataclass(frozen=True)
class EveryEpoch(Trigger):
    """Fires at the end of each epoch, the first one included.

    (In Analytics Zoo the first end went unnoticed when an epoch was a single step.)
    """

    def fires(self, moment: Moment) -> bool:
        """Whether an epoch has ended."""
        return moment.epoch_ended


@dataclass(frozen=True)
class SeveralIteration(Trigger):
    """Fires every so many steps, counted over all epochs.

    Args:
        interval: Steps from one time to the next.

    Raises:
        InputError: The interval is not a whole number of 1 or more.
    """

    interval: int

    def __post_init__(self) -> None:
        _check_count("interval", self.interval)

    def fires(self, moment: Moment) -> bool:
        """Whether a multiple of the interval is done."""
        return moment.iteration > 0 and moment.iteration % self.interval == 0


@dataclass(frozen=True)
class EverySeconds(Trigger):
    """Fires when so many seconds have gone by since the last time, or since the fit began.

    Args:
        seconds: From one time to the next, at least.

    Raises:
        InputError: The seconds are not a number above 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        _check_number("seconds", self.seconds)
        if self.seconds <= 0:
            raise InputError("seconds above 0", repr(self.seconds), "Give a number.")

    def fires(self, moment: Moment) -> bool:
        """Whether the seconds have gone by."""
        return moment.seconds >= self.seconds


@dataclass(frozen=True)
class MaxEpoch(Trigger):
    """Fires when so many epochs are done, and from then on.

    Args:
        max: Epochs in all.

    Raises:
        InputError: Not a whole number of 1 or more.
    """

    max: int

    def __post_init__(self) -> None:
        _check_count("max", self.max)

    def fires(self, moment: Moment) -> bool:
        """Whether the epochs are done."""
        return moment.epoch >= self.max


@dataclass(frozen=True)
class MaxIteration(Trigger):
    """Fires when so many steps are done, and from then on.

    Args:
        max: Steps in all.

    Raises:
        InputError: Not a whole number of 1 or more.
    """

    max: int

    def __post_init__(self) -> None:
        _check_count("max", self.max)

    def fires(self, moment: Moment) -> bool:
        """Whether the steps are done."""
        return moment.iteration >= self.max


@dataclass(frozen=True)
class MaxScore(Trigger):
    """Fires while the newest validation result is above a bound.

    Args:
        max: The bound.

    Raises:
        InputError: Not a number.
    """

    max: float

    def __post_init__(self) -> None:
        _check_number("max", self.max)

    def fires(self, moment: Moment) -> bool:
        """Whether the score is above the bound."""
        return moment.score is not None and moment.score > self.max


@dataclass(frozen=True)
class MinLoss(Trigger):
    """Fires while the loss of the step is below a bound.

    Args:
        min: The bound.

    Raises:
        InputError: Not a number.
    """

    min: float

    def __post_init__(self) -> None:
        _check_number("min", self.min)

    def fires(self, moment: Moment) -> bool:
        """Whether the loss is below the bound."""
        return moment.loss < self.min


class _Several(Trigger):
    def __init__(self, first: Trigger, *other: Trigger) -> None:
        self.triggers = (first, *other)
        for one in self.triggers:
            if not isinstance(one, Trigger):
                raise InputError("triggers", repr(one), "Give objects such as EveryEpoch().")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.triggers))})"


class TriggerAnd(_Several):
    """Fires when all its triggers do.

    `TriggerAnd(EveryEpoch(), EverySeconds(600))` means ends of epochs, ten minutes apart or more.

    Args:
        first: A trigger.
        *other: More of them.

    Raises:
        InputError: One is not a trigger.
    """

    def fires(self, moment: Moment) -> bool:
        """Whether all fire."""
        return all(one.fires(moment) for one in self.triggers)


class TriggerOr(_Several):
    """Fires when any of its triggers does.

    Args:
        first: A trigger.
        *other: More of them.

    Raises:
        InputError: One is not a trigger.
    """

    def fires(self, moment: Moment) -> bool:
        """Whether any fires."""
        return any(one.fires(moment) for one in self.triggers)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name} to be a whole number, 1 or more", repr(value), "Give one.")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise InputError(f"{name} to be a number", repr(value), "Give one.")
