"""A torch model in training on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.orca.learn.framework import Feed, Place, Sums
from zoo.orca.learn.pytorch.batches import Batch, on_device
from zoo.orca.learn.pytorch.gradients import (
    FlatGradients,
    RunningStatistics,
    clip,
    sparse_parameters,
)
from zoo.orca.learn.pytorch.losses import Weighed, say_unknown_weight, weigh_loss
from zoo.orca.learn.pytorch.modes import evaluating, start_training
from zoo.orca.learn.pytorch.operator.scorer import make_scorer, score_batches
from zoo.orca.learn.pytorch.orca_optimizer import ScheduleLR
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.scorer import AnyMetric
from zoo.orca.learn.steps import EpochStats, GradientLimits, StepSums

__all__ = ["TorchLearner"]


class TorchLearner:
    """Trains what a recipe built.

    Args:
        built: Model, optimizer, loss, schedule.
        place: This rank among the ranks.
        seed: Of dropout and other randomness in the model.
        step_freq: When the schedule advances: `batch`, `epoch` or None.
        validation: The validation batches, or None.
        metrics: Computed on them.
        limits: For gradients, or None.
    """

    def __init__(
        self,
        built: Built,
        place: Place,
        *,
        seed: int,
        step_freq: str | None = None,
        validation: Feed | None = None,
        metrics: Mapping[str, AnyMetric] | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._built, self._place, self._seed = built, place, seed
        self._step_freq, self._metrics = step_freq, dict(metrics or {})
        self._limits = limits
        self._alone = place.size == 1
        self._parameters: list[torch.nn.Parameter] = []
        self._frozen: list[torch.nn.Parameter] = []
        self._gradients: FlatGradients | None = None
        self._running = None if self._alone else RunningStatistics(built.model)
        self._arrays: list[np.ndarray] = []
        self._validation = validation
        self._remainder: _Remainder | None = None
        self._adds_up = getattr(built.loss, "reduction", "mean") == "sum"
        self._generator: Any = torch.default_generator

    def buffers(self) -> list[np.ndarray]:
        """Flat gradients and running statistics; none when this is the only rank.

        Asked at the beginning of an epoch, after callbacks, which may change what is trained.
        """
        given = [p for group in self._built.optimizer.param_groups for p in group["params"]]
        parameters = [p for p in given if p.requires_grad]
        self._frozen = [p for p in given if not p.requires_grad]
        same = len(parameters) == len(self._parameters)
        if same and all(a is b for a, b in zip(parameters, self._parameters, strict=True)):
            return self._arrays
        self._parameters = parameters
        if not self._alone:
            assert self._running is not None
            self._gradients = FlatGradients(parameters, sparse_parameters(self._built.model))
            self._arrays = [*self._gradients.arrays, *self._running.arrays]
        return self._arrays

    def begin_epoch(self, epoch: int) -> None:
        """Training mode."""
        start_training(self._built.model)

    def begin_step(self, iteration: int) -> None:
        """Seed torch's randomness: a step is the same whenever, and however often, it is taken."""
        seed = hash((self._seed, iteration, self._place.rank)) & 0x7FFFFFFFFFFFFFFF
        self._generator.manual_seed(seed)
        if self._built.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def backward(self, batch: Batch | None, sums: StepSums) -> None:
        """Gradients of a batch, weighted so that they add up over the ranks."""
        if batch is None:
            sums.set(0, 0.0, 0.0)
            if self._gradients is not None:
                for array in self._arrays:
                    array[:] = 0.0
            return
        built = self._built
        batch = batch.to(built.device)
        built.optimizer.zero_grad(set_to_none=True)
        weight, value = self._add_parts(batch.parts(built.accumulate))
        if self._adds_up:
            # The sum over the ranks is the loss: count it once over all rows.
            sums.set(batch.rows, float(batch.rows), value)
        else:
            sums.set(batch.rows, weight, value if weight else 0.0)
        if self._gradients is None:
            return
        if weight or self._adds_up:
            self._gradients.gather()
            if built.scaler is not None and not self._adds_up:
                self._gradients.multiply(weight)
        else:
            self._gradients.clear()
        assert self._running is not None
        self._running.gather(batch.rows)

    def _add_parts(self, parts: Sequence[Batch]) -> tuple[float, float]:
        """Add up gradients, weights, and losses times their weights."""
        # Alone, gradients are of the mean; with others they are divided after the sum over the
        # ranks. In half precision too they are of a mean: a sum over rows is out of its range. As
        # the weight of all parts is not known before the last, they count in that of the first.
        mean = not self._adds_up and (self._gradients is None or self._built.scaler is not None)
        weight, value, unit = 0.0, 0.0, 0.0 if mean else 1.0
        for part in parts:
            with self._built.autocast():
                found = self._loss(part)
            if not found.known and (len(parts) > 1 or not self._alone):
                say_unknown_weight()
            share = 1.0 if self._adds_up else found.weight
            weight, unit = weight + found.weight, unit or found.weight
            value += found.loss.item() * share if share else 0.0
            self._backward(found.loss, share / unit if share else 0.0)
        if mean and weight not in (0.0, unit):
            self._multiply(unit / weight)
        elif mean and not weight and self._alone:
            # As it is with other ranks: an update without gradients, not none at all.
            for parameter in self._parameters:
                parameter.grad = torch.zeros_like(parameter)
        return weight, value

    def _backward(self, loss: torch.Tensor, scale: float) -> None:
        """Add the gradients of a loss, scaled."""
        if self._built.scaler is not None:
            loss = self._built.scaler.scale(loss)
        if scale == 1.0:
            loss.backward()
        elif scale:
            # The same as `loss.backward(scale)`, which loads all of sympy: 2 s in each rank.
            (loss * scale).backward()

    def _multiply(self, factor: float) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad *= factor

    def _loss(self, batch: Batch) -> Weighed:
        """The loss of a batch, one number, from a forward pass."""
        output = self._built.forward(batch.features)
        return weigh_loss(self._built, output, batch.targets, batch.rows, batch.weights)

    def update(self, sums: StepSums) -> None:
        """One step of the optimizer."""
        built = self._built
        if self._gradients is not None:
            self._gradients.scatter(1.0 if self._adds_up else sums.weight or 1.0)
            assert self._running is not None
            self._running.scatter(sums.rows)
        for parameter in self._frozen:
            parameter.grad = None  # one that is trained from now on has a sum from the next epoch
        if built.scaler is not None:
            built.scaler.unscale_(built.optimizer)
        if self._limits is not None:
            clip(self._parameters, self._limits)
        if built.scaler is not None:
            built.scaler.step(built.optimizer)
            built.scaler.update()
        else:
            built.optimizer.step()
        by_step = self._step_freq == "batch" or isinstance(built.scheduler, ScheduleLR)
        if by_step and built.scheduler is not None:
            built.scheduler.step()

    def restore(self) -> None:
        """Undo what a step that was cut off has changed."""
        if self._running is not None:
            self._running.restore()

    def remainder(self, own_rows: int) -> list[np.ndarray]:
        """Buffers that a model keeps itself, to become their mean over the ranks, by rows."""
        running = self._running
        if running is None:
            return []
        buffers = [
            b for b in self._built.model.buffers() if b.is_floating_point() and not running.holds(b)
        ]
        self._remainder = _Remainder(buffers, own_rows) if buffers else None
        return [] if self._remainder is None else self._remainder.arrays

    def settle(self) -> None:
        """See `Learner`."""
        assert self._remainder is not None
        self._remainder.scatter()

    def score(self) -> Sums | None:
        """Score this rank's part of the validation data."""
        if self._validation is None:
            return None
        self._scorer = scorer = make_scorer(self._built, self._metrics)
        with evaluating(self._built.model):
            score_batches(scorer, on_device(self._validation.epoch(0), self._built.device))
        return scorer.sums()

    def scored(self, parts: Sequence[Sums]) -> dict[str, Any]:
        """See `Learner`."""
        return self._scorer.result(parts)

    def end_epoch(self, stats: EpochStats) -> None:
        """Advance a schedule that goes by epochs."""
        scheduler = self._built.scheduler
        if isinstance(scheduler, ScheduleLR):
            scores = [v for name, v in stats.scores.items() if name != "val_loss"]
            seen = {"Loss": stats.loss, **({"score": scores[0]} if scores else {})}
            scheduler.observe(seen)
            return
        if self._step_freq != "epoch" or scheduler is None:
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(stats.validation.get("val_loss", stats.loss))
        else:
            scheduler.step()


class _Remainder:
    """Buffers to average over the ranks at the end of an epoch, as flat arrays.

    Args:
        buffers: Of this rank's model.
        own_rows: What they weigh.

    Attributes:
        arrays: The weight, and the buffers times it: sums of them over ranks.
    """

    def __init__(self, buffers: Sequence[torch.Tensor], own_rows: int) -> None:
        self._buffers = list(buffers)
        parts = [b.detach().reshape(-1).double().cpu() for b in self._buffers]
        self.arrays = [np.array([float(own_rows)]), torch.cat(parts).mul_(own_rows).numpy()]

    def scatter(self) -> None:
        """Give every buffer its mean."""
        (count,), flat = self.arrays
        at = 0
        for buffer in self._buffers:
            mean = torch.from_numpy(flat[at : at + buffer.numel()] / count)
            buffer.copy_(mean.view(buffer.shape))
            at += buffer.numel()
