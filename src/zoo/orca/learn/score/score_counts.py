"""How often each score belongs to a positive and to a negative: all that a ranking metric needs.

Counts of parts of the data can be merged, so the metrics are those of all rows, however they were
split. Exact up to `EXACT_SCORES` different scores in a part. Above that, neighbours share a count,
and pairs within a group are counted as ties: of each class at most 6 / EXACT_SCORES are in a group,
so the area is off by less than that. As groups err to both sides, it is far less on real data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zoo.errors import InputError

__all__ = ["EXACT_SCORES", "ScoreCounts"]

EXACT_SCORES = 1 << 18
_LARGEST = np.finfo(np.float64).max / 4


class ScoreCounts:
    """Counts by score. Scores are any numbers; only their order matters."""

    def __init__(self) -> None:
        # Lowest score and highest score of each group, rising; its negatives; its positives.
        self._groups = np.empty((4, 0))
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._rows = 0

    def add(self, scores: np.ndarray, positive: np.ndarray) -> None:
        """Take in a batch.

        Args:
            scores: Of shape (n,).
            positive: Whether it is a positive, of shape (n,).

        Raises:
            InputError: A score is not a number.
        """
        scores = scores.astype(np.float64)
        if np.isnan(scores).any():
            raise InputError(
                "scores that can be put in order",
                f"{int(np.isnan(scores).sum())} of {len(scores)} are not a number",
                "Look at the loss: a model whose weights are not numbers predicts none.",
            )
        # What is further out, infinity included, is the same to us: so differences are numbers.
        scores = scores.clip(-_LARGEST, _LARGEST)
        self._waiting.append((scores, positive.astype(bool)))
        self._rows += len(scores)
        if self._rows > 2 * EXACT_SCORES:
            self._count()

    def vector(self) -> np.ndarray:
        """What was seen, as one row of numbers."""
        self._count()
        low, high, negative, positive = self._groups
        # Mostly the same, so that there is nothing to send once it is packed.
        return np.concatenate([low, high - low, negative, positive])

    def merge(self, vectors: Iterable[np.ndarray]) -> None:
        """Put the vectors of all parts in the place of what was seen."""
        self._waiting, self._rows = [], 0
        parts = [vector.reshape(4, -1) for vector in vectors]
        self._groups = _sorted([np.vstack([p[0], p[0] + p[1], p[2:]]) for p in parts])

    def roc_auc(self) -> float:
        """Area under the ROC curve; nan without positives or without negatives.

        It is the chance that a positive has a higher score than a negative, ties counted half
        (Hanley and McNeil 1982, The Meaning and Use of the Area under a ROC Curve).
        """
        self._count()
        _, _, negative, positive = self._groups
        below = np.cumsum(negative) - negative
        pairs = negative.sum() * positive.sum()
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")

    def average_precision(self) -> float:
        """Precision at the score of each positive, on average; nan without positives.

        No interpolation between scores: the step function, as in scikit-learn's
        `average_precision_score`. Only within a group of several scores, positives are taken to lie
        evenly among the negatives.
        """
        self._count()
        low, high, negative, positive = self._groups[:, ::-1]
        if not positive.sum():
            return float("nan")
        hits = np.cumsum(positive)
        rows = hits + np.cumsum(negative)
        total = positive * hits / rows
        several = (low < high) & (positive > 0)
        total[several] = _spread(
            (hits - positive)[several], (rows - positive - negative)[several],
            positive[several], negative[several],
        )  # fmt: skip
        return float(total.sum() / positive.sum())

    def _count(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate([scores for scores, _ in self._waiting])
        positive = np.concatenate([positive for _, positive in self._waiting])
        self._waiting, self._rows = [], 0
        self._groups = _sorted([self._groups, np.stack([scores, scores, ~positive, positive])])
        if self._groups.shape[1] > EXACT_SCORES:
            self._groups = _shortened(self._groups)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    """Groups of all parts, in order; those with the same score become one."""
    low, high, negative, positive = np.concatenate([np.empty((4, 0)), *parts], axis=1)
    middle = np.where(low == high, low, low / 2 + high / 2)
    order = np.argsort(middle, kind="stable")
    first = np.flatnonzero(np.diff(middle[order], prepend=np.nan) != 0)
    return _joined(np.stack([low, high, negative, positive])[:, order], first)


def _joined(groups: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One group for all from one of `first` to the next."""
    if not groups.shape[1]:
        return groups
    low, high, negative, positive = groups
    return np.stack(
        [
            np.minimum.reduceat(low, first),
            np.maximum.reduceat(high, first),
            np.add.reduceat(negative, first),
            np.add.reduceat(positive, first),
        ]
    )


def _shortened(groups: np.ndarray) -> np.ndarray:
    positive, rows = groups[3], groups[2] + groups[3]
    # Even shares of each class, and shares that grow with the rows above them: precision at the
    # highest scores hangs on single rows.
    above = np.log1p(rows[::-1].cumsum())[::-1]
    shares = [count.cumsum() / max(1.0, count.sum()) for count in (groups[2], positive)]
    shares.append(1 - above / above[0])
    # A new group begins before and behind where a share is full: so a score that is a share by
    # itself, as those of rare positives are, is alone.
    passed = np.zeros(groups.shape[1])
    for share in shares:
        behind = np.floor(share * (EXACT_SCORES / 6))
        passed += behind
        passed[1:] += behind[:-1]
    return _joined(groups, np.flatnonzero(np.diff(passed, prepend=-1.0)))


def _spread(
    hits: np.ndarray, rows: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> np.ndarray:
    """The precision of each positive of a group, added up, if it is spread over the negatives.

    The sum over them is taken as an integral, by the midpoint rule backwards.

    Args:
        hits: Positives above the group.
        rows: All rows above it.
        positive: Those in it; at least one.
        negative: Those in it.
    """
    step = 1 + negative / positive
    # The i-th of them has hits + i positives among rows + i * step - negative / positive / 2 rows.
    start = rows - (step - 1) / 2
    ends = np.log(start + step * (positive + 0.5)) - np.log(start + step / 2)
    summed: np.ndarray = (positive + (hits - start / step) * ends) / step
    return summed
