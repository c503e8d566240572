"""Models in training as a user's operator says, on one rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from zoo.errors import InputError
from zoo.orca.learn.agree.collective import Collective
from zoo.orca.learn.framework import Place
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.gradients import FlatGradients, RunningStatistics, clip
from zoo.orca.learn.pytorch.learner import TorchLearner
from zoo.orca.learn.pytorch.losses import Weighed, loss_weight
from zoo.orca.learn.pytorch.operator.host import host_of, replaces, to_tuple
from zoo.orca.learn.pytorch.orca_optimizer import ScheduleLR
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.training_operator import TrainingOperator, WeightedMeans
from zoo.orca.learn.steps import EpochStats

__all__ = ["ForwardLearner", "StepsLearner", "learner_kind"]

Connect = Callable[[Sequence[np.ndarray]], Collective]


def learner_kind(built: Built) -> type[TorchLearner]:
    """The learner that honours what the operator replaces."""
    host = built.operator
    if host is None:
        return TorchLearner
    if replaces(host.kind, "train_epoch", "train_batch"):
        return StepsLearner
    return ForwardLearner


class ForwardLearner(TorchLearner):
    """Takes the library's own steps, with the operator's `forward_batch` for model and loss."""

    def __init__(self, built: Built, place: Place, **given: Any) -> None:
        super().__init__(built, place, **given)
        self._host = host_of(built)
        self._start()
        optimizers = self._host.operator.optimizers
        if len(optimizers) > 1 and type(self) is ForwardLearner:
            raise InputError(
                "a train_batch of your own for several optimizers", f"{len(optimizers)} of them",
                "Replace train_batch in the operator and take their steps there.",
            )  # fmt: skip

    def _start(self) -> None:
        self._host.start(self._built)

    def begin_step(self, iteration: int) -> None:
        """See `TorchLearner`."""
        super().begin_step(iteration)
        self._host.operator.global_step = iteration

    def _loss(self, batch: Batch) -> Weighed:
        if not replaces(self._host.kind, "forward_batch"):
            return super()._loss(batch)
        host = self._host
        place = {"batch_idx": host.position.step, "global_step": host.position.iteration}
        _, _, loss = host.operator.forward_batch(to_tuple(batch), {**place, **host.info})
        return Weighed(one_number(loss), loss_weight(self._built.loss, batch))


def one_number(loss: Any) -> torch.Tensor:
    """Refuse a loss that is not one number."""
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss.reshape(())
    raise InputError(
        "a loss that is one number for a batch, as a tensor, from forward_batch",
        f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__,
        "Take its mean.",
    )


class Agreement:
    """How ranks agree on the gradients of one optimizer. Every rank makes it at the same point.

    Args:
        connect: Makes what adds over the ranks.
        parameters: Those that the optimizer trains.
        running: Statistics of batch norms, which agree on the way.
        adds_up: The loss adds up over rows, so gradients do.
    """

    def __init__(
        self,
        connect: Connect,
        parameters: Sequence[torch.nn.Parameter],
        running: RunningStatistics,
        *,
        adds_up: bool,
    ) -> None:
        self.parameters, self._running, self._adds_up = list(parameters), running, adds_up
        self._gradients = FlatGradients(parameters)
        self._sums = np.zeros(1)
        arrays = [self._sums, *self._gradients.arrays, *running.arrays]
        self._collective = connect(arrays)

    def add_up(self, rows: int) -> int:
        """Sum over the ranks, weighted by rows; the rows of all."""
        # Nothing times zero: the gradients of rows that do not count may be infinite.
        if rows:
            self._gradients.gather()
            for flat in self._gradients.arrays[1:] if not self._adds_up else ():
                flat *= rows
        else:
            self._gradients.clear()
        self._sums[0] = rows
        self._running.gather(rows)
        self._collective.all_reduce()
        return int(self._sums[0])

    def spread(self) -> None:
        """Give parameters and batch norms the means."""
        rows = int(self._sums[0])
        self._gradients.scatter(1.0 if self._adds_up else float(rows or 1))
        if rows:
            self._running.scatter(rows)

    def close(self) -> None:
        """Let go of memory and connections."""
        self._collective.close()


class StepsLearner(ForwardLearner):
    """Lets the operator take its own steps; ranks agree when an optimizer is about to.

    Attributes:
        connect: Makes what adds over the ranks; the loop gives it.
        on_change: Called when weights begin to change, until the end of the step; the loop gives
            it.
        torn: A step was cut off after weights had changed: what this rank holds is not whole.
        rows: Rows of this rank that count in this step; None outside of steps.
        agreed_rows: Rows of all ranks in this step, as far as an optimizer has asked.
        sync_s: Time in which ranks agreed, in this step.
    """

    connect: Connect
    on_change: Callable[[], None]

    def __init__(self, built: Built, place: Place, **given: Any) -> None:
        super().__init__(built, place, **given)
        for optimizer in self._host.operator.optimizers:
            optimizer.register_step_pre_hook(self._before_step)
        self._agreements: dict[int, Agreement] = {}
        self.rows: int | None = None
        self.agreed_rows = 0
        self._numbers = WeightedMeans()
        self._agreed = self.torn = False
        self.sync_s = 0.0

    def buffers(self) -> list[np.ndarray]:
        """None: each optimizer agrees by itself on what it trains, which callbacks may change."""
        if self._alone:
            return []
        assert self._running is not None
        for optimizer in self._host.operator.optimizers:
            groups = optimizer.param_groups
            wanted = [p for group in groups for p in group["params"] if p.requires_grad]
            before = self._agreements.get(id(optimizer))
            if before is not None:
                if [id(p) for p in before.parameters] == [id(p) for p in wanted]:
                    continue
                before.close()
            self._agreements[id(optimizer)] = Agreement(
                self.connect, wanted, self._running, adds_up=self._adds_up
            )
        return []

    def begin_batch(self, iteration: int, batch: Batch, rows: int) -> tuple[Any, ...]:
        """The batch for the operator.

        Args:
            iteration: Steps done in all.
            batch: The rows.
            rows: How many of them count: all, or none when they only keep this rank in step.
        """
        self.begin_step(iteration)
        self.rows, self.sync_s, self._numbers = rows, 0.0, WeightedMeans()
        self.agreed_rows = rows
        return to_tuple(batch.to(self._built.device))

    def end_batch(self) -> WeightedMeans:
        """The step is whole; what the operator said of it. Rows that do not count say nothing."""
        if self.rows == 0:
            self._numbers.weight = 0.0
            self._numbers.sums = dict.fromkeys(self._numbers.sums, 0.0)
        self.torn, self.rows = False, None
        return self._numbers

    def train_epoch(self, batches: Any, info: dict[str, Any]) -> Any:
        """Let the operator train."""
        operator = self._host.operator
        return operator.train_epoch(batches, {**info, **self._host.info})

    @property
    def tells(self) -> bool:
        """Whether what `train_epoch` returns is the user's own."""
        return replaces(self._host.kind, "train_epoch")

    def _start(self) -> None:
        self._host.start(self._built, stepper=self)

    def hear(self, numbers: dict[str, float]) -> None:
        """See `Stepper`."""
        self._numbers.add(numbers, self.rows or 0)

    def gradients(self, operator: TrainingOperator, batch: Any, info: dict[str, Any]) -> float:
        """See `Stepper`."""
        built = self._built
        operator.optimizer.zero_grad(set_to_none=True)
        with built.autocast():
            _, _, loss = operator.forward_batch(batch, info)
        loss = one_number(loss)
        (loss if built.scaler is None else built.scaler.scale(loss)).backward()
        return float(loss.item())

    def step(self, optimizer: Optimizer) -> None:
        """See `Stepper`."""
        scaler = self._built.scaler
        if scaler is None:
            optimizer.step()
            return
        # What is too large is looked for in the sums, so that all ranks find the same.
        self._agree(optimizer)
        scaler.unscale_(optimizer)
        self._limit(optimizer)
        self._agreed = True
        scaler.step(optimizer)
        self._agreed = False
        scaler.update()

    def advance(self, operator: TrainingOperator) -> None:
        """See `Stepper`."""
        scheduler = self._built.scheduler
        by_step = self._step_freq == "batch" or isinstance(scheduler, ScheduleLR)
        if by_step and scheduler is not None:
            scheduler.step()

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], named: Any) -> None:
        if self._agreed:
            return
        closure = named.get("closure") or next((a for a in args if callable(a)), None)
        if closure is not None and not self._alone:
            raise InputError(
                "optimizer.step() without a closure, when ranks agree on gradients", "a closure",
                "Use an optimizer that takes one gradient for each step.",
            )  # fmt: skip
        self._agree(optimizer)
        self._limit(optimizer)

    def _agree(self, optimizer: Optimizer) -> None:
        begin = time.perf_counter()
        agreement = None if self._alone else self._agreements[id(optimizer)]
        if agreement is not None:
            # After the last batch all ranks count alike.
            self.agreed_rows = agreement.add_up(1 if self.rows is None else self.rows)
        self.on_change()
        self.torn = True
        if agreement is not None:
            agreement.spread()
        self.sync_s += time.perf_counter() - begin

    def _limit(self, optimizer: Optimizer) -> None:
        if self._limits is not None:
            clip([p for group in optimizer.param_groups for p in group["params"]], self._limits)

    def end_epoch(self, stats: EpochStats) -> None:
        """See `TorchLearner`."""
        super().end_epoch(stats)
        tidy(stats)

    def close(self) -> None:
        """Let go of memory and connections."""
        for agreement in self._agreements.values():
            agreement.close()


def tidy(stats: EpochStats) -> None:
    """Drop what the loop counts itself, where the operator counted the same."""
    if stats.extra.get("num_samples") == stats.rows:
        for name in ("num_samples", "train_loss", "last_train_loss"):
            stats.extra.pop(name, None)
