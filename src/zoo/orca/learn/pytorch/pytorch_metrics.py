"""Running metrics on torch tensors, exact over any split of the data.

Call a metric on each batch and `compute` at any time::

    accuracy = Accuracy()
    for features, targets in loader:
        accuracy(model(features), targets)
    value = accuracy.compute()

What a metric has seen is a short vector, `state`, that adds up: the sum of the vectors of all ranks
is the vector of all their data, however unevenly it was split. Counts are whole numbers in float64
and so exact; sums are taken in float64. Nothing is written to the caller's tensors, and apart from
`SparseCategoricalCrossEntropy` no call waits for an accelerator.
"""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch

from zoo.errors import InputError
from zoo.orca.learn.pytorch.torchmetrics_adapter import SummedTorchMetric

__all__ = [
    "AUC",
    "MAE",
    "MSE",
    "Accuracy",
    "AdditiveMetric",
    "BinaryAccuracy",
    "BinaryCrossEntropy",
    "CategoricalAccuracy",
    "CategoricalCrossEntropy",
    "KLDivergence",
    "Poisson",
    "ShapeError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossEntropy",
    "Top5Accuracy",
    "adopt",
]

_EPSILON = 1e-7

# A softmax in float32 may end a rounding step above 1.
_ROUNDING = 1e-5


class ShapeError(InputError, RuntimeError):
    """Predictions and targets do not fit together."""


@runtime_checkable
class AdditiveMetric(Protocol):
    """A metric that evaluation can split over ranks. Yours may have any class with these methods.

    The sum of the states of two parts of the data must be the state of both together.
    """

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""

    def compute(self) -> torch.Tensor:
        """Return the value over everything seen; nan when nothing was."""

    def state(self) -> torch.Tensor:
        """Return what was seen: a new float64 vector whose length never changes."""

    def load_state(self, vector: torch.Tensor) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""

    def reset(self) -> None:
        """Forget everything seen."""


def adopt(metric: object) -> AdditiveMetric | None:
    """Make a fresh running metric of a user's own metric object.

    Args:
        metric: An object with the methods of `AdditiveMetric`, or a torchmetrics metric.

    Returns:
        A copy that has seen nothing, or None when the object is neither.

    Raises:
        InputError: The states of a torchmetrics metric do not add up.
    """
    if isinstance(metric, type):
        return None
    if isinstance(metric, AdditiveMetric):
        fresh = copy.deepcopy(metric)
        fresh.reset()
        return fresh
    # Whoever has such an object has loaded the package.
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None and isinstance(metric, torchmetrics.Metric):
        return SummedTorchMetric(metric)
    return None


class _Mean(ABC):
    """A total over a count; the state is both."""

    _total: torch.Tensor
    _count: float

    def __init__(self) -> None:
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        self._add(*self._measure(*_plain(preds, targets)))

    @abstractmethod
    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return the batch's total, a scalar, and its count."""

    def _add(self, total: torch.Tensor, count: int) -> None:
        # Not in place: a state that was made in inference mode may not be changed outside it.
        self._total = self._total + total
        self._count += count

    def compute(self) -> torch.Tensor:
        """Return the mean over everything seen; nan when nothing was."""
        return self._total / self._count

    def state(self) -> torch.Tensor:
        """Return `[total, count]`."""
        return torch.stack([self._total, self._total.new_tensor(self._count)])

    def load_state(self, vector: torch.Tensor) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""
        vector = _state_vector(vector, length=2)
        self._total, self._count = vector[0], float(vector[1])

    def reset(self) -> None:
        """Forget everything seen."""
        self._total = torch.zeros((), dtype=torch.float64)
        self._count = 0.0


class Accuracy(_Mean):
    """Share of right predictions.

    Predictions may be classes, probabilities in the shape of the targets (1 from 0.5 on), or class
    scores with one dimension more (the highest wins). The classes are the last dimension, or the
    second where only that fits.

    Args:
        first_label: The target that stands for the first class score.
    """

    def __init__(self, first_label: int = 0) -> None:
        super().__init__()
        self.first_label = first_label

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        if preds.shape == (*targets.shape, 1):
            preds = preds.squeeze(-1)
        if preds.shape == targets.shape:
            classes = preds >= 0.5 if preds.is_floating_point() else preds
            return (classes == targets).sum(), targets.numel()
        scores, labels = _scores_and_labels(preds, targets)
        return (scores.argmax(-1) + self.first_label == labels).sum(), labels.numel()


class SparseCategoricalAccuracy(_Mean):
    """Share of rows whose highest class score is at the target; targets (N,) or (N, 1)."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = _scores_and_labels(preds, targets)
        return (scores.argmax(-1) == labels).sum(), labels.numel()


class CategoricalAccuracy(_Mean):
    """Share of rows whose highest class score is at the highest entry of a one-hot target."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        hits = preds.argmax(-1) == targets.argmax(-1)
        return hits.sum(), hits.numel()


class BinaryAccuracy(_Mean):
    """Share of probabilities on the right side of a threshold, which itself counts as 0."""

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor, threshold: float = 0.5) -> None:
        """Take in one batch, cut at the threshold."""
        preds, targets = _aligned(*_plain(preds, targets))
        self._add(*self._measure(preds > threshold, targets))

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (preds == targets).sum(), targets.numel()


class Top5Accuracy(_Mean):
    """Share of rows whose target is among the five highest scores; targets (N,) or (N, 1).

    Of equal scores the lower class comes first, so that the value does not hang on how the data
    was split. With five classes or fewer every target counts that is one of them.
    """

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = _scores_and_labels(preds, targets)
        classes = torch.arange(scores.shape[-1], device=scores.device)
        known = labels.clamp(0, scores.shape[-1] - 1).unsqueeze(-1)
        own = scores.gather(-1, known)
        # Written with "not less or equal", so that a nan counts as ahead and is never a hit.
        ahead = (~(scores <= own)) | ((scores == own) & (classes < known))
        hits = (ahead.sum(-1) < min(5, scores.shape[-1])) & (known.squeeze(-1) == labels)
        return hits.sum(), labels.numel()


class AUC:
    """Area under the ROC curve, by trapezoids between evenly spaced thresholds.

    Predictions are probabilities of the positive class; a prediction is positive when it is above
    the threshold, a target when it is above 0. The state is one histogram of the predictions for
    negative and one for positive targets. With only one kind of target the area is nan.

    Args:
        threshold_num: How many thresholds; the first lies just below 0 and the last just above 1.
    """

    _counts: torch.Tensor

    def __init__(self, threshold_num: int = 200) -> None:
        self.threshold_num = threshold_num
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        preds, targets = _aligned(*_plain(preds, targets))
        values = preds.reshape(-1).double()
        # A bin holds the predictions above exactly that many thresholds. Bin 0 stays free, because
        # every probability is above the first one: it collects what is none.
        bins = (values * (self.threshold_num - 1)).ceil().clamp(1, self.threshold_num - 1)
        usable = (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)
        bins = torch.where(usable, bins, 0).long()
        bins += (targets.reshape(-1) > 0) * self.threshold_num
        # bincount would make the caller wait for the device.
        seen = values.new_zeros(2 * self.threshold_num)
        seen.index_add_(0, bins, torch.ones_like(values))
        self._counts = self._counts.to(seen.device) + seen

    def compute(self) -> torch.Tensor:
        """Return the area; nan until positives and negatives were seen.

        Raises:
            InputError: Some predictions were no probabilities.
        """
        counts = self._counts.reshape(2, self.threshold_num)
        strays = int(counts[:, 0].sum())
        if strays:
            raise InputError(
                "predictions from 0 to 1 for AUC",
                f"{strays} outside or not a number",
                "Let the model end in a sigmoid, or apply one to its scores.",
            )
        above = counts.flip(1).cumsum(1)
        rates = torch.nn.functional.pad(above / above[:, -1:], (1, 0))
        return torch.trapezoid(rates[1], rates[0])

    def state(self) -> torch.Tensor:
        """Return the counts by bin: those of negative targets, then those of positive ones."""
        return self._counts.clone()

    def load_state(self, vector: torch.Tensor) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""
        self._counts = _state_vector(vector, length=2 * self.threshold_num)

    def reset(self) -> None:
        """Forget everything seen."""
        self._counts = torch.zeros(2 * self.threshold_num, dtype=torch.float64)


class MAE(_Mean):
    """Mean absolute error over all elements."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        return (preds.double() - targets.double()).abs().sum(), targets.numel()


class MSE(_Mean):
    """Mean squared error over all elements."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        return (preds.double() - targets.double()).square().sum(), targets.numel()


class BinaryCrossEntropy(_Mean):
    """Cross entropy of probabilities against targets of 0 and 1, per element."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        preds, targets = _aligned(preds, targets)
        chance, truth = _probabilities(preds), targets.double()
        losses = truth * chance.log() + (1 - truth) * (-chance).log1p()
        return -losses.sum(), targets.numel()


class CategoricalCrossEntropy(_Mean):
    """Cross entropy of class probabilities against one-hot targets, per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        return -(_probabilities(preds).log() * targets).sum(), _samples(targets)


class SparseCategoricalCrossEntropy(_Mean):
    """Cross entropy of class probabilities against class numbers, (N,) or (N, 1), per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = _scores_and_labels(preds, targets)
        classes = scores.shape[-1]
        # Checked before the lookup, which would end the whole process on an accelerator.
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise InputError(
                f"class numbers from 0 to {classes - 1} as targets",
                f"{int(labels.min())} to {int(labels.max())}",
                "Number the classes from 0, one for each score.",
            )
        own = scores.gather(-1, labels.unsqueeze(-1))
        return -_probabilities(own).log().sum(), _samples(labels)


class KLDivergence(_Mean):
    """Kullback-Leibler divergence of the target from the predicted distribution, per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        truth = _probabilities(targets)
        return (truth * (truth / _probabilities(preds)).log()).sum(), _samples(targets)


class Poisson(_Mean):
    """Poisson loss `prediction - target * log(prediction)`, per element."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_same_shape(preds, targets)
        rate = preds.double()
        return (rate - targets * (rate + _EPSILON).log()).sum(), targets.numel()


def _plain(preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave the graph, and meet on the device of the predictions."""
    for value in (preds, targets):
        if not isinstance(value, torch.Tensor):
            raise InputError(
                "one tensor of predictions and one of targets",
                type(value).__name__,
                "Metrics measure one output; choose it with a metric of your own.",
            )
    return preds.detach(), targets.detach().to(preds.device)


def _scores_and_labels(
    preds: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return class scores, the classes last, and whole-numbered labels with one dimension less."""
    if preds.ndim == targets.ndim and targets.shape[-1:] == (1,):
        targets = targets.squeeze(-1)
    if preds.ndim == targets.ndim + 1:
        if preds.shape[:-1] == targets.shape:
            return preds, targets.long()
        if preds.shape[:1] + preds.shape[2:] == targets.shape:
            return preds.movedim(1, -1), targets.long()
    raise _mismatch("one dimension of class scores more than the targets have", preds, targets)


def _aligned(preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring (N, 1) and (N,) together, which broadcasting would blow up to (N, N)."""
    if preds.shape == (*targets.shape, 1):
        return preds.squeeze(-1), targets
    if targets.shape == (*preds.shape, 1):
        return preds, targets.squeeze(-1)
    _check_same_shape(preds, targets)
    return preds, targets


def _check_same_shape(preds: torch.Tensor, targets: torch.Tensor) -> None:
    if preds.shape != targets.shape:
        raise _mismatch("the shape of the targets", preds, targets)


def _mismatch(expected: str, preds: torch.Tensor, targets: torch.Tensor) -> ShapeError:
    return ShapeError(
        f"predictions with {expected}",
        f"predictions {tuple(preds.shape)} and targets {tuple(targets.shape)}",
        "Reshape the labels, or choose the metric that fits them.",
    )


def _probabilities(values: torch.Tensor) -> torch.Tensor:
    return values.double().clamp(_EPSILON, 1 - _EPSILON)


def _samples(targets: torch.Tensor) -> int:
    return targets.shape[0] if targets.ndim else 1


def _state_vector(vector: torch.Tensor, length: int) -> torch.Tensor:
    if vector.shape != (length,):
        raise ShapeError(
            f"a state of {length} numbers",
            f"shape {tuple(vector.shape)}",
            "Add up and load states of equally configured metrics only.",
        )
    return vector.detach().to(torch.float64, copy=True)
