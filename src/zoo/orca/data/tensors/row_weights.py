"""What rows weigh in a loss: a column of numbers, weights of their classes, or their product."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.flaws import Flaw, raise_flaws
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.rows import Pieces, Rows, TaskPlace

__all__ = ["ClassWeights", "RowWeights", "balanced", "checked_classes", "weigh"]

_MOST_CLASSES = 10_000
_COUNTED = "classes string, weights string, flaws string"


@dataclass(frozen=True)
class ClassWeights:
    """What the rows of each class weigh; those of a class without a weight weigh 1.

    Attributes:
        classes: Numbers, from the lowest.
        weights: One for each.
    """

    classes: tuple[float, ...]
    weights: tuple[float, ...]

    def __call__(self, classes: np.ndarray) -> np.ndarray:
        """The weights of rows, by their classes."""
        known = np.asarray(self.classes)
        at = np.searchsorted(known, classes).clip(max=len(known) - 1)
        return np.where(known[at] == classes, np.asarray(self.weights)[at], 1.0)


@dataclass(frozen=True)
class RowWeights:
    """What was asked for.

    Attributes:
        column: Of numbers, or the key of an array in each dict; None for 1.
        classes: What classes weigh besides, in training; `balanced` has it counted.
    """

    column: str | None = None
    classes: ClassWeights | str | None = None


def checked_classes(given: Any) -> ClassWeights | str | None:
    """Class weights as a user gave them.

    Raises:
        InputError: They are neither numbers of 0 or more by class nor `balanced`.
    """
    if given is None or (isinstance(given, str) and given == "balanced"):
        return given
    try:
        pairs = sorted((float(c), float(w)) for c, w in given.items())
        good = bool(pairs) and all(math.isfinite(w) and w >= 0 for _, w in pairs)
    except (AttributeError, TypeError, ValueError):
        good = False
    if not good or not any(w for _, w in pairs):
        raise InputError(
            "class_weight as 'balanced' or a dict with a weight of 0 or more for each class",
            repr(given),
            "Pass class_weight={0: 1.0, 1: 5.0}, for example.",
        )
    return ClassWeights(tuple(c for c, _ in pairs), tuple(w for _, w in pairs))


def weigh(plan: TensorPlan, weights: RowWeights) -> TensorPlan:
    """The plan with what its rows weigh.

    Args:
        plan: Of features and labels.
        weights: `balanced` no more.

    Raises:
        ColumnError: There are class weights, and no label that is a class.
    """
    columns = []
    if weights.column is not None:
        columns.append(ColumnPlan(weights.column, "weight", "float64"))
    if weights.classes is not None:
        assert isinstance(weights.classes, ClassWeights)
        name = _class_column(plan)
        columns.append(ColumnPlan(name, "class", "float64", decode=weights.classes))
    if not columns:
        return plan
    return replace(plan, weight=TensorSpec(tuple(columns), "float64", (len(columns),)))


def _class_column(plan: TensorPlan) -> str:
    """The column of the classes."""
    columns = [column for spec in plan.labels for column in spec.columns]
    plain = len(columns) == 1 and columns[0].kind in ("scalar", "ndarray")
    if not plain or plan.labels[0].shape not in ((), (1,)):
        raise ColumnError(
            "one label, the class of the row, for class_weight",
            ", ".join(f"'{c.name}'" for c in columns) or "none",
            "Give rows weights of their own, with sample_weight_col.",
        )
    return columns[0].name


def balanced(rows: Rows, plan: TensorPlan, column: str | None) -> ClassWeights:
    """Weights with which all classes count alike: rows / (classes * rows of the class).

    Where rows have weights of their own, these are added up instead of the rows. A job looks at
    the labels.

    Args:
        rows: Of the training.
        plan: Of features and labels.
        column: With the rows' own weights.

    Raises:
        ColumnError: There is no label that is a class, or cells cannot become numbers.
        InputError: There are too many classes.
    """
    name = _class_column(plan)
    looked = weigh(TensorPlan((), plan.labels), RowWeights(column))

    def count(pieces: Pieces, place: TaskPlace) -> Iterator[pa.RecordBatch]:
        yield _counted(pieces, looked)

    found = rows.run(looked, count, _COUNTED)
    raise_flaws([Flaw(**flaw) for part in found for flaw in json.loads(part["flaws"])])
    totals: Counter[float] = Counter()
    for part in found:
        for number, weight in zip(
            json.loads(part["classes"]), json.loads(part["weights"]), strict=True
        ):
            totals[number] += weight
    if not totals or len(totals) > _MOST_CLASSES or any(c != math.floor(c) for c in totals):
        raise InputError(
            f"whole numbers, of at most {_MOST_CLASSES} classes, in '{name}' for "
            "class_weight='balanced'",
            f"{len(totals)} different numbers, such as {sorted(totals)[:3]}",
            "Number the classes, with StringIndexer for example.",
        )
    weighty = {number: weight for number, weight in totals.items() if weight}
    mean = sum(weighty.values()) / max(1, len(weighty))
    known = sorted(weighty)
    return ClassWeights(tuple(known), tuple(mean / weighty[number] for number in known))


def _counted(pieces: Pieces, plan: TensorPlan) -> pa.RecordBatch:
    """The classes of a partition and what their rows weigh."""
    totals: Counter[float] = Counter()
    for arrays in pieces:
        _, (labels,), factors = plan.split(arrays)
        weights = np.ones(len(labels)) if factors is None else factors.prod(axis=1)
        classes, which = np.unique(labels.reshape(-1).astype(np.float64), return_inverse=True)
        sums = np.bincount(which, weights=weights, minlength=len(classes))
        for number, weight in zip(classes.tolist(), sums.tolist(), strict=True):
            totals[number] += weight
        if len(totals) > _MOST_CLASSES:
            break
    flaws = json.dumps([asdict(flaw) for flaw in pieces.flaws.values()])
    values = [json.dumps(list(totals)), json.dumps(list(totals.values())), flaws]
    names = [part.split()[0] for part in _COUNTED.split(", ")]
    return pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})
