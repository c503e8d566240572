"""Precision, recall and F1 of a confusion matrix.

A matrix has the true classes as rows and the predicted ones as columns. Those of parts of the data
add up; the larger one decides how many classes there are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zoo.errors import InputError

__all__ = ["AVERAGES", "average", "confusion", "sum_of"]

AVERAGES = ("binary", "macro", "micro", "weighted")


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was taken for each.

    Args:
        truth: Class numbers from 0.
        found: What was predicted, in the same order.
        classes: How many there are; class numbers are below it.
    """
    counts = np.bincount(truth * classes + found, minlength=classes * classes)
    return counts.astype(np.float64).reshape(classes, classes)


def sum_of(matrices: Iterable[np.ndarray]) -> np.ndarray:
    """The matrix of all parts of the data."""
    total = np.zeros((0, 0))
    for matrix in matrices:
        small, large = sorted((total, matrix), key=len)
        total = large.copy()
        total[: len(small), : len(small)] += small
    return total


def average(matrix: np.ndarray, kind: str, how: str | None) -> float:
    """Precision, recall or F1 over the classes; nan when nothing was seen.

    A class that was never predicted has the precision 0, one that never occurred the recall 0, as
    in scikit-learn. A class that did neither is in no mean.

    Args:
        matrix: From `confusion`.
        kind: `precision`, `recall` or `f1`.
        how: `binary` is that of class 1, `macro` the mean over classes, `weighted` that mean by
            how often each occurred, `micro` that of all decisions together. None: `binary` where
            there are two classes, `macro` where there are more.

    Raises:
        InputError: `binary`, and there are more than two classes.
    """
    if not matrix.sum():
        return float("nan")
    how = how or ("binary" if len(matrix) <= 2 else "macro")
    hits, found, truth = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    if how == "micro":
        return float(hits.sum() / matrix.sum())
    against = {"precision": found, "recall": truth, "f1": (found + truth) / 2}[kind]
    each = np.divide(hits, against, out=np.zeros(len(hits)), where=against > 0)
    if how == "binary":
        if len(matrix) > 2:
            raise InputError(
                "two classes for average='binary'",
                f"{len(matrix)}",
                "Choose average='macro', 'weighted' or 'micro'.",
            )
        return float(each[1]) if len(each) > 1 else 0.0
    weights = truth if how == "weighted" else (found + truth > 0).astype(float)
    return float((each * weights).sum() / weights.sum())
