"""Several models, optimizers or schedules in the place of one, for operators that use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zoo.errors import InputError

__all__ = [
    "Memory",
    "Models",
    "OptimizerList",
    "SchedulerList",
    "as_given",
    "join",
    "members",
    "require_plain",
]


class Memory(Protocol):
    """What an operator remembers, wherever it lives."""

    def state_dict(self) -> dict[str, Any]:
        """What is to be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""


class Models(nn.ModuleList):
    """Several models. It cannot be called: an operator does that."""


class OptimizerList(Optimizer):
    """Several optimizers, with what the operator remembers.

    Args:
        optimizers: One or more.
        memory: Saved with them; None for nothing.
    """

    def __init__(self, optimizers: Sequence[Optimizer], memory: Memory | None = None) -> None:
        # Not the base's: that would make groups of its own. This has those of its members.
        self.members, self.memory = list(optimizers), memory

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Of all of them, in order."""
        return [group for optimizer in self.members for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all."""
        for optimizer in self.members:
            optimizer.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step of each."""
        for optimizer in self.members:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all, and what the operator remembers."""
        memory = {} if self.memory is None else self.memory.state_dict()
        return {"optimizers": [o.state_dict() for o in self.members], "operator": memory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state_dict: What it returned, perhaps in another process.

        Raises:
            ValueError: It is of another number of optimizers.
        """
        for optimizer, state in zip(self.members, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.memory is not None:
            self.memory.load_state_dict(state_dict["operator"])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.members, self.memory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.members})"


class SchedulerList(LRScheduler):
    """Several schedules that advance together.

    Args:
        schedulers: Two or more.

    Raises:
        InputError: One of them watches a number.
    """

    def __init__(self, schedulers: Sequence[LRScheduler]) -> None:
        if any(isinstance(s, ReduceLROnPlateau) for s in schedulers):
            raise InputError(
                "schedules that need no number when there are several", "a ReduceLROnPlateau",
                "Make it in the operator's setup(), and step it there.",
            )  # fmt: skip
        self.members = list(schedulers)

    def step(self, epoch: int | None = None) -> None:
        """Advance all."""
        for scheduler in self.members:
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all, without functions, which are made anew."""
        states = [s.state_dict() for s in self.members]
        plain = [{k: v for k, v in state.items() if not callable(v)} for state in states]
        return {"schedulers": plain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state_dict: What it returned, perhaps in another process.

        Raises:
            ValueError: It is of another number of schedules.
        """
        for scheduler, state in zip(self.members, state_dict["schedulers"], strict=True):
            scheduler.load_state_dict(state)


def members(made: Any) -> list[Any]:
    """One or several things, as a list."""
    if isinstance(made, OptimizerList | SchedulerList):
        return list(made.members)
    return list(made) if isinstance(made, Models) else [made]


def as_given(value: Any) -> Any:
    """What a creator is called with: several as a list, anything else as it is."""
    return members(value) if isinstance(value, Models | OptimizerList) else value


def require_plain(value: Any, place: str = "state_dict()") -> None:
    """Refuse what a saved file could not be read back with.

    Raises:
        InputError: It holds something else than tensors, numbers, texts, lists and dicts.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            require_plain(key, f"a key of {place}")
            require_plain(part, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            require_plain(part, f"{place}[{index}]")
    # A subclass of a number, such as one of numpy, needs pickle; a parameter does not.
    elif type(value) not in (int, float, bool, str, bytes, type(None)) and not isinstance(
        value, torch.Tensor
    ):
        raise InputError(
            f"tensors, numbers, texts, lists and dicts in {place} of an operator",
            type(value).__name__,
            "Convert it, for example by float(), .tolist() or torch.from_numpy().",
        )


_JOINED: dict[type[Any], Callable[[Sequence[Any]], Any]] = {
    nn.Module: Models,
    Optimizer: OptimizerList,
    LRScheduler: SchedulerList,
}


def join(made: Any, kind: type[Any], what: str, *, custom: bool) -> Any:
    """Put several things that a creator returned in the place of one.

    Args:
        made: What it returned.
        kind: What it was to return.
        what: Its name.
        custom: Whether there is an operator that knows what to do with them.

    Raises:
        InputError: There is none.
    """
    if not isinstance(made, list | tuple) or not made:
        return made
    if not all(isinstance(one, kind) for one in made):
        return made
    if len(made) == 1:
        return made[0]
    if not custom:
        raise InputError(
            f"one {what} with the default TrainingOperator", f"{len(made)} of them",
            "Derive a class from TrainingOperator that uses all of them, and pass it as "
            "training_operator_cls.",
        )  # fmt: skip
    return _JOINED[kind](made)
