"""Running metrics of classifiers whose states are gathered: ranks, or counts of classes.

What they have seen can be of any length, so the states of parts of the data are merged and not
added. The counting itself is numpy's, and the same for every framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoo.errors import InputError
from zoo.orca.learn.pytorch.metric_inputs import Cut, ShapeError, aligned, plain, scores_and_labels
from zoo.orca.learn.score.confusion import AVERAGES, average, confusion, sum_of
from zoo.orca.learn.score.score_counts import ScoreCounts

__all__ = ["AUC", "AveragePrecision", "ConfusionMatrix", "F1Score", "Precision", "Recall"]


class _Ranked(ABC):
    """A metric of the order that scores put positives and negatives in.

    Scores are any numbers: probabilities, logits, distances. The model gives one for each row, or
    two, of the negative and of the positive class. Targets are 0 or -1, and 1.
    """

    def __init__(self) -> None:
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        preds, targets = plain(preds, targets)
        rows = targets.shape[:-1] if targets.shape[-1:] == (1,) else targets.shape
        if preds.shape == (*rows, 2):
            # Of probabilities and of logits alike, this rises with the chance of the positive one.
            preds = preds[..., 1].double() - preds[..., 0].double()
        preds, targets = aligned(preds, targets)
        truth = targets.reshape(-1).double().cpu().numpy()
        if strays := int((~np.isin(truth, (-1, 0, 1))).sum()):
            raise InputError(
                f"targets 0 (or -1) and 1 for {type(self).__name__}",
                f"{strays} of {len(truth)} that are neither",
                "Turn the labels into a yes-or-no question first.",
            )
        self._counts.add(preds.reshape(-1).double().cpu().numpy(), truth > 0)

    @abstractmethod
    def compute(self) -> torch.Tensor:
        """Return the value over everything seen."""

    def state(self) -> torch.Tensor:
        """Return the counts by score."""
        return torch.from_numpy(self._counts.vector().copy())

    def load_states(self, states: Sequence[torch.Tensor]) -> None:
        """Put the states of all parts in the place of what was seen."""
        self._counts.merge([state.numpy() for state in states])

    def reset(self) -> None:
        """Forget everything seen."""
        self._counts = ScoreCounts()


class AUC(_Ranked):
    """Area under the ROC curve, by rank: see `ScoreCounts.roc_auc`."""

    def compute(self) -> torch.Tensor:
        """Return the area; nan until positives and negatives were seen."""
        return torch.tensor(self._counts.roc_auc(), dtype=torch.float64)


class AveragePrecision(_Ranked):
    """Area under the steps of precision over recall: see `ScoreCounts.average_precision`."""

    def compute(self) -> torch.Tensor:
        """Return the area; nan until positives were seen."""
        return torch.tensor(self._counts.average_precision(), dtype=torch.float64)


class ConfusionMatrix:
    """How often each class was taken for each: rows are true classes, columns predicted ones.

    Predictions are class scores with one dimension more than the targets (the highest wins), class
    numbers, or scores of yes-or-no questions in the shape of the targets.

    Args:
        threshold: The probability above which a score is a yes.
        from_logits: Whether scores of yes-or-no questions are logits.
    """

    def __init__(self, threshold: float = 0.5, from_logits: bool = False) -> None:
        self._cut, self._matrix = Cut(threshold, from_logits), np.zeros((0, 0))

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch.

        Raises:
            InputError: A target is no class number from 0.
        """
        preds, targets = plain(preds, targets)
        if preds.ndim <= targets.ndim or preds.shape == (*targets.shape, 1):
            preds, targets = aligned(preds, targets)
            scores = preds.is_floating_point()
            found, classes = (preds > self._cut.at(preds), 2) if scores else (preds, 0)
        else:
            preds, targets = scores_and_labels(preds, targets)
            found, classes = preds.argmax(-1), preds.shape[-1]
        truth, taken = (part.reshape(-1).cpu().numpy() for part in (targets, found))
        self._require_classes(truth, classes)
        if len(truth):
            classes = classes or int(max(truth.max(), taken.max())) + 1
            seen = confusion(truth.astype(np.int64), taken.astype(np.int64), classes)
            self._matrix = sum_of([self._matrix, seen])

    def _require_classes(self, truth: np.ndarray, classes: int) -> None:
        wrong = (truth < 0) | (truth != np.floor(truth))
        if classes:
            wrong |= truth >= classes
        if wrong.any():
            known = f"from 0 to {classes - 1}" if classes else "from 0"
            raise InputError(
                f"class numbers {known} as targets",
                f"{truth[wrong][0]:g}",
                "Number the classes from 0, one for each score.",
            )

    def compute(self) -> torch.Tensor:
        """Return the counts, of shape (classes, classes)."""
        self._cut.say(type(self).__name__)
        return torch.from_numpy(self._matrix.copy())

    def state(self) -> torch.Tensor:
        """Return how many scores were no probabilities, then the counts."""
        counts = torch.from_numpy(self._matrix.reshape(-1))
        return torch.cat([self._cut.outside.double().cpu().reshape(1), counts])

    def load_states(self, states: Sequence[torch.Tensor]) -> None:
        """Put the states of all parts in the place of what was seen."""
        self.reset()
        for state in states:
            outside, counts = state[0], state[1:].numpy()
            classes = round(len(counts) ** 0.5)
            if classes * classes != len(counts):
                raise ShapeError(
                    "the counts of a square matrix", f"{len(counts)} counts",
                    "Load states of such metrics only.",
                )  # fmt: skip
            self._cut.outside = self._cut.outside + outside
            self._matrix = sum_of([self._matrix, counts.reshape(classes, classes)])

    def reset(self) -> None:
        """Forget everything seen."""
        self._cut.reset()
        self._matrix = np.zeros((0, 0))


class _FromConfusion(ConfusionMatrix):
    """A number of a confusion matrix.

    Args:
        average: See `zoo.orca.learn.score.confusion.average`.
        threshold: See `ConfusionMatrix`.
        from_logits: See `ConfusionMatrix`.
    """

    kind: str

    def __init__(self, average: str | None = None, **cut: Any) -> None:
        if average not in (None, *AVERAGES):
            known = ", ".join(AVERAGES)
            raise InputError(
                f"an average out of {known}", repr(average), "Leave it out, or name one."
            )
        super().__init__(**cut)
        self._average = average

    def compute(self) -> torch.Tensor:
        """Return the value over everything seen; nan when nothing was."""
        matrix = super().compute().numpy()
        return torch.tensor(average(matrix, self.kind, self._average), dtype=torch.float64)


class Precision(_FromConfusion):
    """Share of the predictions of a class that are right."""

    kind = "precision"


class Recall(_FromConfusion):
    """Share of the rows of a class that were found."""

    kind = "recall"


class F1Score(_FromConfusion):
    """Harmonic mean of precision and recall."""

    kind = "f1"
