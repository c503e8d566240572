"""Records of steps and epochs: where training stands, what a step adds up, what an epoch was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["EpochStats", "GradientLimits", "Position", "StepSums", "validation_name"]

_SUMS = 6


def validation_name(name: str) -> str:
    """How a result of validation is called among the other numbers of an epoch.

    Args:
        name: Of a metric, or the name itself.
    """
    return name if name.startswith("val_") else f"val_{name}"


@dataclass
class Position:
    """Where training stands.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the running epoch.
        iteration: Steps done in all.
    """

    epoch: int = 0
    step: int = 0
    iteration: int = 0


@dataclass
class StepSums:
    """What every step adds up over the ranks besides the gradients.

    Attributes:
        array: Ranks that still have batches, rows, weight of the rows in the loss, weight times
            loss, ranks that want the fit to stop, ranks that were asked to leave.
    """

    array: np.ndarray = field(default_factory=lambda: np.zeros(_SUMS))

    def set(self, rows: int, weight: float, loss: float) -> None:
        """This rank's part."""
        self.array[:4] = (1.0, rows, weight, loss)

    def clear(self) -> None:
        """This rank has no batch any more."""
        self.array[:4] = 0.0

    def vote(self, *, stop: bool, leave: bool) -> None:
        """Whether this rank wants the fit, or the round, to end after the step."""
        # Nobody voted in the step before, or it would have been the last: zeros are still there.
        if stop or leave:
            self.array[4:] = (stop, leave)

    @property
    def active(self) -> bool:
        """Whether any rank had a batch."""
        return bool(self.array[0])

    @property
    def rows(self) -> int:
        """Rows of the step."""
        return int(self.array[1])

    @property
    def weight(self) -> float:
        """What the gradients are divided by."""
        return float(self.array[2])

    @property
    def loss(self) -> float:
        """Mean loss of the step."""
        return float(self.array[3] / self.array[2]) if self.array[2] else float("nan")

    @property
    def stop(self) -> bool:
        """Whether the fit should end."""
        return bool(self.array[4])

    @property
    def leave(self) -> bool:
        """Whether the round should end."""
        return bool(self.array[5])


@dataclass
class EpochStats:
    """What one epoch was, on one rank.

    Attributes:
        epoch: Counted from 1.
        steps: Steps taken.
        rows: Rows over all ranks.
        weight: What the rows weighed in the loss: their number, unless it has weights.
        loss_sum: Loss times weight, summed over the steps.
        last_loss: Loss of the last step that weighed anything.
        own_rows: Rows of this rank.
        own_weight: What they weighed.
        own_loss_sum: Its loss times that.
        data_s: Waiting for batches.
        compute_s: Forward, backward, update.
        sync_s: Agreeing with other ranks, waiting for them included.
        observe_s: Callbacks, and copying the state for snapshots.
        snapshot_s: Copying the state, part of `observe_s`.
        seconds: The whole epoch, validation not included.
        validate_s: Validation.
        validation: Results of validation, by name: numbers, and lists of lists for matrices.
        extra: Numbers that callbacks and operators add.
    """

    epoch: int
    steps: int = 0
    rows: int = 0
    weight: float = 0.0
    loss_sum: float = 0.0
    last_loss: float = float("nan")
    own_rows: int = 0
    own_weight: float = 0.0
    own_loss_sum: float = 0.0
    data_s: float = 0.0
    compute_s: float = 0.0
    sync_s: float = 0.0
    observe_s: float = 0.0
    snapshot_s: float = 0.0
    seconds: float = 0.0
    validate_s: float = 0.0
    validation: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean loss over the rows."""
        return self.loss_sum / self.weight if self.weight else float("nan")

    @property
    def own_loss(self) -> float:
        """Mean loss over the rows of this rank."""
        return self.own_loss_sum / self.own_weight if self.own_weight else float("nan")

    @property
    def scores(self) -> dict[str, float]:
        """The numbers among the results of validation."""
        return {k: v for k, v in self.validation.items() if isinstance(v, int | float)}

    def took(self, sums: StepSums) -> None:
        """Count a step that all ranks have taken."""
        self.steps += 1
        self.rows += sums.rows
        if sums.weight:
            self.last_loss = sums.loss
            self.weight += sums.weight
            self.loss_sum += sums.loss * sums.weight

    def observed(self, seconds: float) -> None:
        """Count callbacks or a copy of the state that came after the steps."""
        self.observe_s += seconds
        self.seconds += seconds


@dataclass(frozen=True)
class GradientLimits:
    """Limits for the mean gradients of a step.

    Attributes:
        low: No element falls below it; None without.
        high: No element rises above it; None without.
        norm: Longest L2 norm of all gradients together; None without.
    """

    low: float | None = None
    high: float | None = None
    norm: float | None = None
