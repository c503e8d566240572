"""Running metrics on torch tensors, exact over any split of the data.

Call a metric on each batch and `compute` at any time::

    accuracy = Accuracy()
    for features, targets in loader:
        accuracy(model(features), targets)
    value = accuracy.compute()

What a mean has seen is a short vector, `state`, that adds up: the sum of the vectors of all ranks
is the vector of all their data, however unevenly it was split. Counts are whole numbers in float64
and so exact; sums are taken in float64. Nothing is written to the caller's tensors, and apart from
`SparseCategoricalCrossEntropy` and `LogLoss` no call of a mean waits for an accelerator.
"""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from zoo.errors import InputError
from zoo.orca.learn.metrics import AdditiveMetric, GatheredMetric, RunningMetric
from zoo.orca.learn.pytorch.classification_metrics import (
    AUC,
    AveragePrecision,
    ConfusionMatrix,
    F1Score,
    Precision,
    Recall,
)
from zoo.orca.learn.pytorch.metric_inputs import (
    ROUNDING,
    Cut,
    ShapeError,
    aligned,
    plain,
    require_same_shape,
    scores_and_labels,
    state_vector,
)
from zoo.orca.learn.pytorch.torchmetrics_adapter import TorchMetric
from zoo.orca.learn.score.pair_sample import sample_of

__all__ = [
    "AUC",
    "MAE",
    "MSE",
    "Accuracy",
    "AdditiveMetric",
    "AveragePrecision",
    "BinaryAccuracy",
    "BinaryCrossEntropy",
    "CategoricalAccuracy",
    "CategoricalCrossEntropy",
    "ConfusionMatrix",
    "F1Score",
    "KLDivergence",
    "LogLoss",
    "Poisson",
    "Precision",
    "PredictionPairs",
    "Recall",
    "ShapeError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossEntropy",
    "Top5Accuracy",
    "adopt",
]

_EPSILON = 1e-7


def adopt(metric: object) -> RunningMetric | None:
    """Make a fresh running metric of a user's own metric object.

    Args:
        metric: An object with the methods of `AdditiveMetric` or of `GatheredMetric`, or a
            torchmetrics metric.

    Returns:
        A copy that has seen nothing, or None when the object is neither.

    Raises:
        InputError: The states of a torchmetrics metric cannot be merged.
    """
    if isinstance(metric, type):
        return None
    if isinstance(metric, AdditiveMetric | GatheredMetric):
        fresh = copy.deepcopy(metric)
        fresh.reset()
        return fresh
    # Whoever has such an object has loaded the package.
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None and isinstance(metric, torchmetrics.Metric):
        return TorchMetric(metric)
    return None


class _Mean(ABC):
    """A total over a count; the state is both."""

    _total: torch.Tensor
    _count: float

    def __init__(self) -> None:
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        self._add(*self._measure(*plain(preds, targets)))

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
        vector = state_vector(vector, length=2)
        self._total, self._count = vector[0], float(vector[1])

    def reset(self) -> None:
        """Forget everything seen."""
        self._total = torch.zeros((), dtype=torch.float64)
        self._count = 0.0


class _CutMean(_Mean):
    """A mean of answers to yes-or-no questions; the state also counts scores out of range.

    Args:
        threshold: The probability from which on a score is a yes.
        from_logits: Whether scores are logits.
    """

    def __init__(self, threshold: float = 0.5, from_logits: bool = False) -> None:
        self._cut = Cut(threshold, from_logits)
        super().__init__()

    def compute(self) -> torch.Tensor:
        """Return the mean over everything seen; nan when nothing was."""
        self._cut.say(type(self).__name__)
        return super().compute()

    def state(self) -> torch.Tensor:
        """Return `[total, count, scores that are no probabilities]`."""
        outside = self._cut.outside.to(self._total).reshape(1)
        return torch.cat([super().state(), outside])

    def load_state(self, vector: torch.Tensor) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""
        vector = state_vector(vector, length=3)
        super().load_state(vector[:2])
        self._cut.outside = vector[2]

    def reset(self) -> None:
        """Forget everything seen."""
        super().reset()
        self._cut.reset()


class Accuracy(_CutMean):
    """Share of right predictions.

    Predictions may be classes, probabilities in the shape of the targets (1 from the threshold on),
    or class scores with one dimension more (the highest wins). The classes are the last dimension,
    or the second where only that fits.

    Args:
        first_label: The target that stands for the first class score.
        threshold: The probability from which on a score is a yes.
        from_logits: Whether scores in the shape of the targets are logits.
    """

    def __init__(
        self, first_label: int = 0, threshold: float = 0.5, from_logits: bool = False
    ) -> None:
        super().__init__(threshold, from_logits)
        self.first_label = first_label

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        if preds.shape == (*targets.shape, 1):
            preds = preds.squeeze(-1)
        if preds.shape == targets.shape:
            classes = preds >= self._cut.at(preds) if preds.is_floating_point() else preds
            return (classes == targets).sum(), targets.numel()
        scores, labels = scores_and_labels(preds, targets)
        return (scores.argmax(-1) + self.first_label == labels).sum(), labels.numel()


class SparseCategoricalAccuracy(_Mean):
    """Share of rows whose highest class score is at the target; targets (N,) or (N, 1)."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = scores_and_labels(preds, targets)
        return (scores.argmax(-1) == labels).sum(), labels.numel()


class CategoricalAccuracy(_Mean):
    """Share of rows whose highest class score is at the highest entry of a one-hot target."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        require_same_shape(preds, targets)
        hits = preds.argmax(-1) == targets.argmax(-1)
        return hits.sum(), hits.numel()


class BinaryAccuracy(_CutMean):
    """Share of scores on the right side of a threshold, which itself counts as 0."""

    def __call__(
        self, preds: torch.Tensor, targets: torch.Tensor, threshold: float | None = None
    ) -> None:
        """Take in one batch, cut at the threshold, or at another one."""
        preds, targets = aligned(*plain(preds, targets))
        self._add(*self._measure(preds > self._cut.at(preds, threshold), targets))

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (preds == targets).sum(), targets.numel()


class Top5Accuracy(_Mean):
    """Share of rows whose target is among the five highest scores; targets (N,) or (N, 1).

    Of equal scores the lower class comes first, so that the value does not hang on how the data
    was split. With five classes or fewer every target counts that is one of them.
    """

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = scores_and_labels(preds, targets)
        classes = torch.arange(scores.shape[-1], device=scores.device)
        known = labels.clamp(0, scores.shape[-1] - 1).unsqueeze(-1)
        own = scores.gather(-1, known)
        # Written with "not less or equal", so that a nan counts as ahead and is never a hit.
        ahead = (~(scores <= own)) | ((scores == own) & (classes < known))
        hits = (ahead.sum(-1) < min(5, scores.shape[-1])) & (known.squeeze(-1) == labels)
        return hits.sum(), labels.numel()


class MAE(_Mean):
    """Mean absolute error over all elements."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        preds, targets = aligned(preds, targets)
        return (preds.double() - targets.double()).abs().sum(), targets.numel()


class MSE(_Mean):
    """Mean squared error over all elements."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        preds, targets = aligned(preds, targets)
        return (preds.double() - targets.double()).square().sum(), targets.numel()


class PredictionPairs:
    """A sample of targets with their predictions, as `zoo.orca.learn.score.pair_sample` draws it.

    Args:
        count: How many at most.
    """

    def __init__(self, count: int = 500) -> None:
        self._count, self._pairs = count, np.zeros((0, 2))

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        preds, targets = aligned(*plain(preds, targets))
        pairs = torch.stack([targets.double().reshape(-1), preds.double().reshape(-1)], dim=1)
        self._take(pairs.cpu().numpy())

    def _take(self, pairs: np.ndarray) -> None:
        self._pairs = sample_of(np.concatenate([self._pairs, pairs]), self._count)

    def compute(self) -> torch.Tensor:
        """Return the sample, of shape (pairs, 2)."""
        return torch.from_numpy(self._pairs.copy())

    def state(self) -> torch.Tensor:
        """Return the sample in one row."""
        return self.compute().reshape(-1)

    def load_states(self, states: Sequence[torch.Tensor]) -> None:
        """Put the states of all parts in the place of what was seen."""
        self.reset()
        for state in states:
            self._take(state.cpu().numpy().reshape(-1, 2))

    def reset(self) -> None:
        """Forget everything seen."""
        self._pairs = np.zeros((0, 2))


class BinaryCrossEntropy(_Mean):
    """Cross entropy of probabilities against targets of 0 and 1, per element."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        preds, targets = aligned(preds, targets)
        chance, truth = _probabilities(preds), targets.double()
        losses = truth * chance.log() + (1 - truth) * (-chance).log1p()
        return -losses.sum(), targets.numel()


class CategoricalCrossEntropy(_Mean):
    """Cross entropy of class probabilities against one-hot targets, per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        require_same_shape(preds, targets)
        return -(_probabilities(preds).log() * targets).sum(), _samples(targets)


class SparseCategoricalCrossEntropy(_Mean):
    """Cross entropy of class probabilities against class numbers, (N,) or (N, 1), per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, labels = scores_and_labels(preds, targets)
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


class LogLoss(_Mean):
    """Cross entropy of predictions against class numbers, per sample, with no floor of our own.

    Predictions are those of a yes-or-no question in the shape of the targets, or one for each
    class. Probabilities are kept as far from 0 and 1 as their type can tell them apart, as in
    scikit-learn's `log_loss`; logits need no such limit.

    Args:
        from_logits: Whether predictions are logits instead of probabilities.
    """

    def __init__(self, from_logits: bool = False) -> None:
        super().__init__()
        self._from_logits = from_logits

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        if preds.shape in (targets.shape, (*targets.shape, 1)):
            preds, targets = aligned(preds, targets)
            self._require_classes(targets, 2)
            return self._of_question(preds, targets.double()), targets.numel()
        scores, labels = scores_and_labels(preds, targets)
        self._require_classes(targets, scores.shape[-1])
        if self._from_logits:
            chances = torch.log_softmax(scores.double(), -1)
        else:
            chances = self._probable(scores).log()
        return -chances.gather(-1, labels.unsqueeze(-1)).sum(), labels.numel()

    def _of_question(self, preds: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self._from_logits:
            logits = preds.double()
            return torch.nn.functional.binary_cross_entropy_with_logits(
                logits, truth, reduction="sum"
            )
        chance = self._probable(preds)
        return -(truth * chance.log() + (1 - truth) * (-chance).log1p()).sum()

    def _probable(self, preds: torch.Tensor) -> torch.Tensor:
        if not bool(((preds >= -ROUNDING) & (preds <= 1 + ROUNDING)).all()):
            raise InputError(
                "probabilities from 0 to 1 for LogLoss",
                f"predictions from {float(preds.min()):g} to {float(preds.max()):g}",
                "For a model that ends in logits: LogLoss(from_logits=True).",
            )
        least = torch.finfo(preds.dtype).eps
        return preds.double().clamp(least, 1 - least)

    def _require_classes(self, targets: torch.Tensor, classes: int) -> None:
        wrong = (targets < 0) | (targets >= classes) | (targets != targets.floor())
        if bool(wrong.any()):
            raise InputError(
                f"class numbers from 0 to {classes - 1} as targets",
                f"{float(targets[wrong].reshape(-1)[0]):g}",
                "Number the classes from 0, one for each score.",
            )


class KLDivergence(_Mean):
    """Kullback-Leibler divergence of the target from the predicted distribution, per sample."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        require_same_shape(preds, targets)
        truth = _probabilities(targets)
        return (truth * (truth / _probabilities(preds)).log()).sum(), _samples(targets)


class Poisson(_Mean):
    """Poisson loss `prediction - target * log(prediction)`, per element."""

    def _measure(self, preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        preds, targets = aligned(preds, targets)
        rate = preds.double()
        return (rate - targets * (rate + _EPSILON).log()).sum(), targets.numel()


def _probabilities(values: torch.Tensor) -> torch.Tensor:
    return values.double().clamp(_EPSILON, 1 - _EPSILON)


def _samples(targets: torch.Tensor) -> int:
    return targets.shape[0] if targets.ndim else 1
