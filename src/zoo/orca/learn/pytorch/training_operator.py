"""How a model is trained, validated and asked for predictions, for users to change.

Derive a class from `TrainingOperator`, replace what should be different, and give the class to the
estimator::

    class TwoPlayers(TrainingOperator):
        def train_batch(self, batch, batch_info):
            generator, judge = self.models
            ...
            return {"loss_g": loss_g.item(), "loss_d": loss_d.item(), "num_samples": len(batch[0])}

    Estimator.from_torch(model=make_both, optimizer=make_both_optimizers,
                         training_operator_cls=TwoPlayers)

A batch is a tuple `(feature, ..., target)`. Several targets are a list in the last place, which is
None without label columns. For prediction there are only features.

**Steps of your own.** A `train_batch` calls `backward` and `step` as on one machine. Whenever an
optimizer is about to step, the ranks agree on the mean of its gradients over all rows of the batch:
a loss is to be a mean over its rows. All ranks must call the same optimizers in the same order. A
rank that has no rows in a step goes through its last batch once more, and what comes of that counts
nothing. Optimizers are those of the optimizer creator; one that `setup` makes for itself is not
agreed on.

**Rounds.** Ranks may come and go, also inside an epoch. Every rank then makes a new operator and
calls `setup`; what an operator must remember belongs in `state_dict`, which is saved with the
model. A `train_epoch` of your own is called once for each stretch of an epoch that a round holds,
usually the whole: its iterator ends early when the round does. A step is over when the next batch
is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.errors import InputError
from zoo.orca.learn.pytorch.losses import compute_loss
from zoo.orca.learn.pytorch.modes import start_training

__all__ = ["Parts", "Stepper", "TrainingOperator", "WeightedMeans", "split_batch"]


class Stepper(Protocol):
    """What the library does for the default `train_batch` and `train_epoch`."""

    def gradients(self, operator: TrainingOperator, batch: Any, info: dict[str, Any]) -> float:
        """Forward and backward of a batch; its loss."""

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights."""

    def advance(self, operator: TrainingOperator) -> None:
        """Advance schedules that go by batches."""

    def hear(self, numbers: dict[str, float]) -> None:
        """Take in what `train_batch` returned, whoever called it."""


class _Alone:
    """For an operator that somebody made by hand."""

    def gradients(self, operator: TrainingOperator, batch: Any, info: dict[str, Any]) -> float:
        operator.optimizer.zero_grad(set_to_none=True)
        _, _, loss = operator.forward_batch(batch, info)
        loss.backward()
        return float(loss.item())

    def step(self, optimizer: Optimizer) -> None:
        optimizer.step()

    def advance(self, operator: TrainingOperator) -> None:
        pass

    def hear(self, numbers: dict[str, float]) -> None:
        pass


@dataclass(frozen=True)
class Parts:
    """What an operator works with.

    Attributes:
        models: On their device.
        optimizers: Empty where nothing is trained.
        criterion: The loss, or None.
        schedulers: Of learning rates.
        device: Where models and batches are.
        world_rank: Number of this rank; 0 in a task that only scores.
        use_fp16: Training is in half precision.
        use_tqdm: The user wants to see progress; the driver shows it.
        stepper: Takes the steps of the default methods; None for an operator made by hand.
    """

    models: Sequence[nn.Module]
    optimizers: Sequence[Optimizer] = ()
    criterion: Any = None
    schedulers: Sequence[LRScheduler] = ()
    device: torch.device = torch.device("cpu")
    world_rank: int = 0
    use_fp16: bool = False
    use_tqdm: bool = False
    stepper: Stepper | None = None


class TrainingOperator:
    """The default way of training; the base of others.

    Args:
        config: Of the estimator.
        parts: Models and all that belongs to them.

    Attributes:
        global_step: Steps done in all, by all fits.
    """

    def __init__(self, config: Mapping[str, Any], parts: Parts) -> None:
        self._config, self._parts = dict(config), parts
        self._stepper: Stepper = parts.stepper or _Alone()
        self.global_step = 0
        self.setup(self._config)

    # What a user may replace.

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare; called once in every process that makes the operator.

        Args:
            config: Of the estimator.
        """

    def train_epoch(self, iterator: Iterator[Any], info: dict[str, Any]) -> dict[str, float]:
        """Train on the batches of an epoch, or of what a round holds of it.

        Args:
            iterator: Batches on the model's device.
            info: What `fit` was given, with `epoch`, counted from 1, and `first_batch`, the number
                of the first batch inside the epoch.

        Returns:
            Numbers for the result of `fit`, as means over the rows of this rank. Those that
            `train_batch` returned are averaged without it.
        """
        for model in self.models:
            start_training(model)
        means = WeightedMeans()
        for index, batch in enumerate(iterator, info.get("first_batch", 0)):
            place = {"batch_idx": index, "global_step": self.global_step}
            means.add(self.train_batch(batch, {**place, **info}), _rows(batch))
            self._stepper.advance(self)
            self.global_step += 1
        return means.result()

    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> dict[str, float]:
        """Train on one batch.

        Args:
            batch: Features, then the target.
            batch_info: What `fit` was given as `info`, with `batch_idx`, the number of the batch
                inside the epoch, and `global_step`.

        Returns:
            Numbers, the same names on every rank and in every step. They are averaged over steps
            and ranks, weighted by `num_samples`, which is the rows of the batch if it is missing.
            `train_loss`, else the first of them, is the loss that progress and callbacks show.
        """
        loss = self._stepper.gradients(self, batch, batch_info)
        self._stepper.step(self.optimizer)
        return {"train_loss": loss, "num_samples": _rows(batch)}

    def forward_batch(self, batch: Any, batch_info: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Run the model on one batch.

        Args:
            batch: Features, then the target.
            batch_info: As for `train_batch`.

        Returns:
            The output, the target, and the loss as a tensor with one number.
        """
        features, targets = split_batch(batch)
        output = self.model(*features)
        loss = compute_loss(_Criterion(self.criterion), output, targets)
        return output, batch[-1], loss

    def validate(
        self, val_iterator: Iterator[Any], info: dict[str, Any], metrics: Mapping[str, Any]
    ) -> dict[str, float]:
        """Score batches. One that you write sees the rows of one rank, or of one partition.

        Args:
            val_iterator: Batches.
            info: What `fit` or `evaluate` was given.
            metrics: Running metrics by name, fresh.

        Returns:
            Numbers by name, as means over the rows seen, and `num_samples`: results of several
            ranks or partitions are averaged, weighted by it.
        """
        means = WeightedMeans()
        for model in self.models:
            model.eval()
        with torch.no_grad():
            for index, batch in enumerate(val_iterator):
                output, target, loss = self.forward_batch(batch, {"batch_idx": index, **info})
                means.add({"val_loss": loss}, _rows(batch))
                for metric in metrics.values():
                    metric(output, target)
        scores = {name: float(metric.compute()) for name, metric in metrics.items()}
        return {**scores, **means.means(), "num_samples": means.weight}

    def predict(self, pred_iterator: Iterator[Any]) -> Any:
        """Predict on batches; the library gives it one batch at a time.

        Args:
            pred_iterator: Batches of features.

        Returns:
            One output for each row: an array or tensor, or a list of them for several outputs.
        """
        for model in self.models:
            model.eval()
        with torch.no_grad():
            outputs = [self.predict_batch(batch) for batch in pred_iterator]
        if len(outputs) == 1:
            return outputs[0]
        if isinstance(outputs[0], list):
            return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        return np.concatenate(outputs)

    def predict_batch(self, batch: Any) -> Any:
        """Predict on one batch.

        Args:
            batch: Features.

        Returns:
            As `predict`.
        """
        features, _ = split_batch(batch, labelled=False)
        output = self.model(*features)
        if isinstance(output, tuple | list):
            return [one.detach().cpu().numpy() for one in output]
        return output.detach().cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs in a saved training besides models, optimizers and schedules.

        Returns:
            Tensors, numbers, texts, and lists and dicts of them.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state_dict: What it returned, perhaps in another process.
        """

    # What a user may read.

    @property
    def config(self) -> dict[str, Any]:
        """The estimator's config."""
        return self._config

    @property
    def model(self) -> nn.Module:
        """The model; the first of several."""
        return self.models[0]

    @property
    def models(self) -> list[nn.Module]:
        """All models."""
        return list(self._parts.models)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; the first of several."""
        return self.optimizers[0]

    @property
    def optimizers(self) -> list[Optimizer]:
        """All optimizers."""
        return list(self._parts.optimizers)

    @property
    def criterion(self) -> Any:
        """The loss that the estimator was given, made if it was a function; or None."""
        return self._parts.criterion

    @property
    def scheduler(self) -> LRScheduler | None:
        """The schedule, or the first of several; None without."""
        return self.schedulers[0] if self._parts.schedulers else None

    @property
    def schedulers(self) -> list[LRScheduler]:
        """All schedules."""
        return list(self._parts.schedulers)

    @property
    def device(self) -> torch.device:
        """Where models and batches are."""
        return self._parts.device

    @property
    def world_rank(self) -> int:
        """Number of this rank, from 0."""
        return self._parts.world_rank

    @property
    def use_fp16(self) -> bool:
        """Whether training is in half precision (`precision="fp16"`)."""
        return self._parts.use_fp16

    @property
    def use_tqdm(self) -> bool:
        """What the estimator was given; the driver shows the progress."""
        return self._parts.use_tqdm


@dataclass(frozen=True)
class _Criterion:
    """A loss in the form that `compute_loss` takes."""

    loss: Any


def split_batch(batch: Any, *, labelled: bool = True) -> tuple[tuple[Any, ...], list[Any]]:
    """Arguments of the model, and the targets.

    Args:
        batch: Features, then the target. One feature that is a list or tuple is spread.
        labelled: False when there is no target.
    """
    features = tuple(batch[:-1]) if labelled else tuple(batch)
    if len(features) == 1 and isinstance(features[0], tuple | list):
        features = tuple(features[0])
    target = batch[-1] if labelled else None
    if target is None:
        return features, []
    return features, list(target) if isinstance(target, tuple | list) else [target]


def _rows(batch: Any) -> int:
    first = batch[0]
    return len(first[0] if isinstance(first, tuple | list) else first)


class WeightedMeans:
    """Running means of numbers by name, weighted by the `num_samples` among them.

    Attributes:
        weight: Of all that was added.
        sums: Of weight times number.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.sums: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def add(self, numbers: Any, rows: int) -> None:
        """Add what a `train_batch` returned.

        Args:
            numbers: By name.
            rows: Weight of those without `num_samples`.

        Raises:
            InputError: It is no dict of numbers.
        """
        if not isinstance(numbers, Mapping):
            raise InputError(
                "a dict of numbers from train_batch", type(numbers).__name__,
                "Return {'train_loss': loss.item(), 'num_samples': len(batch[-1])}.",
            )  # fmt: skip
        self._last = {n: _number(n, v) for n, v in numbers.items() if n != "num_samples"}
        weight = _number("num_samples", numbers.get("num_samples", rows))
        self.weight += weight
        for name, value in self._last.items():
            self.sums[name] = self.sums.get(name, 0.0) + weight * value

    def means(self) -> dict[str, float]:
        """The means; nothing when nothing was added."""
        return {name: value / self.weight for name, value in self.sums.items() if self.weight}

    def result(self) -> dict[str, float]:
        """The means, and the last numbers as `last_` twins."""
        return self.means() | {f"last_{name}": value for name, value in self._last.items()}


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError) as exc:
        raise InputError(
            f"one number for {name!r} from train_batch", type(value).__name__,
            "Return loss.item(), for example.",
        ) from exc  # fmt: skip
