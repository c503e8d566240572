"""A torch model in training on one rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.cluster.meeting import Member
from zoo.orca.learn.collective import Collective
from zoo.orca.learn.loop import EpochStats, Feed, StepSums
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.gradients import FlatGradients, RunningStatistics, clip
from zoo.orca.learn.pytorch.losses import compute_loss, loss_weight
from zoo.orca.learn.pytorch.orca_optimizer import ScheduleLR
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.scorer import Scorer
from zoo.orca.learn.spark_estimator import GradientLimits

__all__ = ["TorchLearner"]


class TorchLearner:
    """Trains what a recipe built.

    Args:
        built: Model, optimizer, loss, schedule.
        member: This rank.
        seed: Of dropout and other randomness in the model.
        step_freq: When the schedule advances: `batch`, `epoch` or None.
        validate: Opens the validation batches, or None.
        metrics: Computed on them.
        limits: For gradients, or None.
    """

    def __init__(
        self,
        built: Built,
        member: Member,
        *,
        seed: int,
        step_freq: str | None = None,
        validate: Callable[[], Feed] | None = None,
        metrics: Mapping[str, AdditiveMetric] | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._built, self._member, self._seed = built, member, seed
        self._step_freq, self._metrics = step_freq, dict(metrics or {})
        self._limits = limits
        self._alone = member.size == 1
        self._parameters: list[torch.nn.Parameter] = []
        self._frozen: list[torch.nn.Parameter] = []
        self._gradients: FlatGradients | None = None
        self._running = None if self._alone else RunningStatistics(built.model)
        self._arrays: list[np.ndarray] = []
        self._validation = validate() if validate is not None else None
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
            self._gradients = FlatGradients(parameters)
            self._arrays = [*self._gradients.arrays, *self._running.arrays]
        return self._arrays

    def begin_epoch(self, epoch: int) -> None:
        """Training mode."""
        self._built.model.train()

    def begin_step(self, iteration: int) -> None:
        """Seed torch's randomness: a step is the same whenever, and however often, it is taken."""
        seed = hash((self._seed, iteration, self._member.rank)) & 0x7FFFFFFFFFFFFFFF
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
        parts = batch.parts(built.accumulate)
        weights = [loss_weight(built.loss, part) for part in parts]
        weight = sum(weights)
        value = 0.0
        for part, share in zip(parts, weights, strict=True):
            value += self._backward(part, share, weight)
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

    def _backward(self, batch: Batch, share: float, weight: float) -> float:
        """Add the gradients of a part of a batch.

        Args:
            batch: The part.
            share: What it weighs.
            weight: What the whole batch weighs.

        Returns:
            Its loss, times its weight unless losses add up.
        """
        built = self._built
        with built.autocast():
            loss = self._loss(batch)
        value = loss.item()
        # Alone, the mean is taken at once; with others, after the sum over the ranks. In half
        # precision weights come later still: a sum over rows is out of its range before a mean is.
        scale = 1.0
        if not self._adds_up:
            mean = self._gradients is None or built.scaler is not None
            scale = share if not mean else (share / weight if weight else 1.0)
            value = value * share if share else 0.0
        if built.scaler is not None:
            loss = built.scaler.scale(loss)
        if scale == 1.0:
            loss.backward()
        elif scale:
            loss.backward(torch.tensor(scale, dtype=loss.dtype, device=loss.device))
        return value

    def _loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, one number, from a forward pass."""
        output = self._built.model(*batch.features)
        return compute_loss(self._built, output, batch.targets)

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

    def settle(self, stats: EpochStats) -> None:
        """Buffers that a model keeps itself become their mean over the ranks, by rows."""
        running = self._running
        if running is None:
            return
        floats = [
            b for b in self._built.model.buffers() if b.is_floating_point() and not running.holds(b)
        ]
        if not floats:
            return
        parts = [b.detach().reshape(-1).double().cpu() for b in floats]
        flat = torch.cat(parts).mul_(stats.own_rows).numpy()
        count = np.array([float(stats.own_rows)])
        collective = Collective(self._member, [count, flat])
        collective.all_reduce()
        collective.close()
        at = 0
        for buffer in floats:
            mean = torch.from_numpy(flat[at : at + buffer.numel()] / count[0])
            buffer.copy_(mean.view(buffer.shape))
            at += buffer.numel()

    def validate(self) -> dict[str, float]:
        """Score the validation data on all ranks."""
        if self._validation is None:
            return {}
        scorer = Scorer(self._built, self._metrics)
        self._built.model.eval()
        with torch.no_grad():
            for batch in self._validation.epoch(0):
                if batch is not None:
                    scorer.add(batch.to(self._built.device))
        self._built.model.train()
        return scorer.result(self._member.share(scorer.sums()))

    def end_epoch(self, stats: EpochStats) -> None:
        """Advance a schedule that goes by epochs."""
        scheduler = self._built.scheduler
        if isinstance(scheduler, ScheduleLR):
            scores = [v for name, v in stats.validation.items() if name != "val_loss"]
            seen = {"Loss": stats.loss, **({"score": scores[0]} if scores else {})}
            scheduler.observe(seen)
            return
        if self._step_freq != "epoch" or scheduler is None:
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(stats.validation.get("val_loss", stats.loss))
        else:
            scheduler.step()
