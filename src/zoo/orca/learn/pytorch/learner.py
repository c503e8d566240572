"""A torch model in training on one rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.cluster.meeting import Member
from zoo.errors import InputError
from zoo.orca.learn.collective import Collective
from zoo.orca.learn.loop import EpochStats, Feed, StepSums
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built

__all__ = ["FlatGradients", "Scorer", "TorchLearner", "compute_loss", "loss_weight"]


def compute_loss(built: Built, output: object, targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch, one number.

    A tuple of outputs goes into the loss with its targets, `loss(*output, *targets)`; one output
    with several columns of targets compares with them side by side.
    """
    if built.loss is None:
        loss = output.mean() if isinstance(output, torch.Tensor) else output
    elif isinstance(output, tuple | list):
        loss = built.loss(*output, *targets)
    else:
        target = targets[0] if len(targets) == 1 else side_by_side(targets)
        loss = _without_broadcast(built.loss, output, target)
    if isinstance(loss, torch.Tensor) and not loss.ndim:
        return loss
    raise InputError(
        "a loss that is one number for a batch, as a tensor",
        f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__,
        "Take its mean.",
    )


def _without_broadcast(loss: Callable[..., Any], output: Any, target: Any) -> Any:
    """Call a loss. Where torch only warns that it compares each output with all targets, raise."""
    # Losses that broadcast compare floats; classes have another shape by their nature.
    tensors = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)
    if not tensors or output.shape == target.shape or not target.is_floating_point():
        return loss(output, target)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            return loss(output, target)
        except UserWarning as exc:
            raise _other_shape(output, target) from exc


def _other_shape(output: Any, target: Any) -> InputError:
    return InputError(
        "outputs and targets of one shape",
        f"{tuple(output.shape)} and {tuple(target.shape)}",
        "Squeeze the model's output, or give the targets a second dimension with a list inside "
        "the list: label_cols=[['y']].",
    )


def side_by_side(targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several targets as the columns of one."""
    return torch.stack(list(targets), dim=1)


def loss_weight(loss: object, batch: Batch) -> float:
    """What a batch weighs in the mean over all ranks.

    A mean loss weighs its rows. Cross entropy with class weights or ignored targets divides by
    the weight of the targets instead, so that is what its batches weigh. A sum needs no division:
    weight 0 says so.
    """
    if getattr(loss, "reduction", "mean") == "sum":
        return 0.0
    target = batch.targets[0] if len(batch.targets) == 1 else None
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target is None:
        return float(batch.rows)
    if target.is_floating_point():
        return float(batch.rows)
    kept = target[target != loss.ignore_index]
    if loss.weight is None:
        return float(kept.numel() * batch.rows / max(1, target.numel()))
    return float(loss.weight[kept].sum())


class FlatGradients:
    """Gradients of all parameters as one array for each floating-point type.

    Attributes:
        arrays: Which parameters have a gradient, then the gradients; sums of them over ranks.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        # Half precision adds up in single precision: sums over many ranks keep their digits.
        wide = [p.dtype == torch.float64 for p in self._parameters]
        self._views: list[torch.Tensor] = []
        flats = []
        for dtype, chosen in ((torch.float32, False), (torch.float64, True)):
            size = sum(
                p.numel() for p, w in zip(self._parameters, wide, strict=True) if w == chosen
            )
            flats.append(torch.zeros(size, dtype=dtype))
        at = [0, 0]
        for p, w in zip(self._parameters, wide, strict=True):
            self._views.append(flats[w][at[w] : at[w] + p.numel()].view(p.shape))
            at[w] += p.numel()
        self._flats = [f for f in flats if f.numel()]
        self._present = np.zeros(len(self._parameters))
        self.arrays = [self._present, *(f.numpy() for f in self._flats)]

    def clear(self) -> None:
        """No rows on this rank in this step."""
        for array in self.arrays:
            array[:] = 0.0

    def gather(self) -> None:
        """Copy the gradients in. A parameter that took no part has none, here and in the sum."""
        grads = [p.grad for p in self._parameters]
        if all(g is not None for g in grads):
            self._present[:] = 1.0
            torch._foreach_copy_(self._views, [_dense(g) for g in grads if g is not None])
            return
        for k, grad in enumerate(grads):
            self._present[k] = grad is not None
            if grad is None:
                self._views[k].zero_()
            else:
                self._views[k].copy_(_dense(grad))

    def scatter(self, divisor: float) -> None:
        """Give every parameter its share of the sums, as the mean."""
        if divisor != 1.0:
            for flat in self._flats:
                flat.mul_(1.0 / divisor)
        every = bool(self._present.all())
        for k, (parameter, view) in enumerate(zip(self._parameters, self._views, strict=True)):
            if every or self._present[k]:
                parameter.grad = view if view.dtype == parameter.dtype else view.to(parameter.dtype)
            else:
                parameter.grad = None


def _dense(grad: torch.Tensor) -> torch.Tensor:
    return grad.to_dense() if grad.is_sparse else grad


class Scorer:
    """Evaluates batches: loss and metrics as sums that add over ranks and partitions."""

    def __init__(self, built: Built, metrics: Mapping[str, AdditiveMetric]) -> None:
        self._built, self._metrics = built, dict(metrics)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        for metric in self._metrics.values():
            metric.reset()

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        output = self._built.model(*batch.features)
        self._sums[0] += batch.rows
        if self._built.loss is not None:
            loss = compute_loss(self._built, output, batch.targets).item()
            weight = loss_weight(self._built.loss, batch)
            if getattr(self._built.loss, "reduction", "mean") == "sum":
                weight, loss = float(batch.rows), loss / batch.rows
            if weight:
                self._sums[1:] += (weight, weight * loss)
        if not self._metrics:
            return
        first = output[0] if isinstance(output, tuple | list) else output
        together = len(batch.targets) > 1 and not isinstance(output, tuple | list)
        target = side_by_side(batch.targets) if together else batch.targets[0]
        for metric in self._metrics.values():
            metric(first, target)

    def sums(self) -> list[list[float]]:
        """What to add up with the other parts of the data."""
        return [self._sums.tolist(), *(m.state().tolist() for m in self._metrics.values())]

    def result(self, parts: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
        """Loss and metrics of all parts together."""
        (_, weight, loss), *states = (np.sum(column, axis=0) for column in zip(*parts, strict=True))
        named: dict[str, float] = {}
        for (name, metric), state in zip(self._metrics.items(), states, strict=True):
            metric.load_state(torch.from_numpy(state))
            named[name] = float(metric.compute())
        if self._built.loss is not None:
            named["val_loss"] = float(loss / weight) if weight else float("nan")
        return named


class TorchLearner:
    """Trains what a recipe built.

    Args:
        built: Model, optimizer, loss, schedule.
        member: This rank.
        seed: Of dropout and other randomness in the model.
        step_freq: When the schedule advances: `batch`, `epoch` or None.
        validate: Opens the validation batches, or None.
        metrics: Computed on them.
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
    ) -> None:
        self._built, self._member, self._seed = built, member, seed
        self._step_freq, self._metrics = step_freq, dict(metrics or {})
        parameters = [
            p for group in built.optimizer.param_groups for p in group["params"] if p.requires_grad
        ]
        self._gradients = FlatGradients(parameters) if member.size > 1 else None
        self._validation = validate() if validate is not None else None
        self._adds_up = getattr(built.loss, "reduction", "mean") == "sum"
        self.iteration = 0

    def buffers(self) -> list[np.ndarray]:
        """The flat gradients; none when this is the only rank."""
        return self._gradients.arrays if self._gradients is not None else []

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, and randomness of its own for every epoch and rank."""
        self._built.model.train()
        torch.manual_seed(hash((self._seed, epoch, self._member.rank)) & 0x7FFFFFFF)

    def backward(self, batch: Batch | None, sums: StepSums) -> None:
        """Gradients of a batch, weighted so that they add up over the ranks."""
        if batch is None:
            sums.set(0, 0.0, 0.0)
            if self._gradients is not None:
                self._gradients.clear()
            return
        built = self._built
        built.optimizer.zero_grad(set_to_none=True)
        output = built.model(*batch.features)
        loss = compute_loss(built, output, batch.targets)
        weight = loss_weight(built.loss, batch)
        value = loss.item()
        if self._adds_up:
            # The sum over the ranks is the loss: count it once over all rows.
            sums.set(batch.rows, float(batch.rows), value)
        else:
            sums.set(batch.rows, weight, value * weight if weight else 0.0)
        if self._gradients is None:
            loss.backward()
        elif weight or self._adds_up:
            scale = 1.0 if self._adds_up else weight
            loss.backward(torch.tensor(scale, dtype=loss.dtype))
            self._gradients.gather()
        else:
            self._gradients.clear()

    def update(self, sums: StepSums) -> None:
        """One step of the optimizer."""
        if self._gradients is not None:
            self._gradients.scatter(1.0 if self._adds_up else sums.weight or 1.0)
        self._built.optimizer.step()
        self.iteration += 1
        if self._step_freq == "batch" and self._built.scheduler is not None:
            self._built.scheduler.step()

    def end_epoch(self, stats: EpochStats) -> None:
        """Agree on buffers, validate, advance the schedule."""
        self._average_buffers(stats.own_rows)
        if self._validation is not None:
            stats.validation = self._validate()
        scheduler = self._built.scheduler
        if self._step_freq == "epoch" and scheduler is not None:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(stats.validation.get("val_loss", stats.loss))
            else:
                scheduler.step()

    def _average_buffers(self, rows: int) -> None:
        """Running statistics become their mean over the ranks, weighted by rows."""
        floats = [b for b in self._built.model.buffers() if b.is_floating_point()]
        if self._member.size == 1 or not floats:
            return
        flat = torch.cat([b.detach().reshape(-1).double() for b in floats]).mul_(rows).numpy()
        count = np.array([float(rows)])
        collective = Collective(self._member, [count, flat])
        collective.all_reduce()
        collective.close()
        at = 0
        for buffer in floats:
            mean = torch.from_numpy(flat[at : at + buffer.numel()] / count[0])
            buffer.copy_(mean.view(buffer.shape))
            at += buffer.numel()

    def _validate(self) -> dict[str, float]:
        assert self._validation is not None
        scorer = Scorer(self._built, self._metrics)
        self._built.model.eval()
        with torch.no_grad():
            for batch in self._validation.epoch(0):
                if batch is not None:
                    scorer.add(batch)
        self._built.model.train()
        return scorer.result(self._member.share(scorer.sums()))
