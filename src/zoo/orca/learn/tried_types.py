"""Other types in which columns of numbers can be read, for models that are tried on made-up rows.

People have whole numbers as doubles and doubles as whole numbers: a class that StringIndexer made,
ages for a linear layer; and one column for a layer that takes a matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from zoo.cluster.ranks.carried import lines_of
from zoo.errors import ColumnError
from zoo.orca.data.tensors.plan import TensorSpec

__all__ = ["as_type", "is_real", "other_features", "other_types", "readings", "refusal"]

_MOST_TRIED = 64


def readings(
    specs: tuple[TensorSpec, ...], others: Callable[[TensorSpec], list[TensorSpec]]
) -> Iterator[tuple[TensorSpec, ...]]:
    """The tensors as they are, then in other readings: those that change least come first.

    Args:
        specs: The tensors.
        others: Gives the other readings of one.
    """
    options = [[spec, *others(spec)] for spec in specs]
    if math.prod(map(len, options)) <= _MOST_TRIED:
        numbers = itertools.product(*(range(len(o)) for o in options))
        for chosen in sorted(numbers, key=sum):
            yield tuple(o[k] for o, k in zip(options, chosen, strict=True))
        return
    yield specs
    for number in range(1, max(map(len, options))):
        yield tuple(o[min(number, len(o) - 1)] for o in options)


def other_features(spec: TensorSpec, fixed: frozenset[str], real: str) -> list[TensorSpec]:
    """Whole numbers as real ones and the other way round, a column as a matrix of one."""
    other = other_types(spec, fixed, real)
    return [*other, *(replace(s, shape=(1,)) for s in (spec, *other) if s.shape == ())]


def other_types(spec: TensorSpec, fixed: frozenset[str], real: str) -> list[TensorSpec]:
    """Whole numbers as real ones, or real ones as whole numbers.

    Args:
        spec: The tensor.
        fixed: Columns whose type the user has chosen.
        real: The type of real numbers.
    """
    other = as_type(spec, "int64" if is_real(spec) else real, fixed)
    return [] if other is spec else [other]


def is_real(spec: TensorSpec) -> bool:
    """Whether the numbers are real ones."""
    return spec.dtype is not None and np.dtype(spec.dtype).kind == "f"


def as_type(spec: TensorSpec, dtype: str, fixed: frozenset[str]) -> TensorSpec:
    """The same columns in another type, which has to hold their numbers exactly."""
    names = {column.name for column in spec.columns}
    if spec.dtype == dtype or names & fixed or any(c.is_bytes or c.is_text for c in spec.columns):
        return spec
    columns = tuple(replace(column, dtype=dtype, exact=True) for column in spec.columns)
    return replace(spec, columns=columns, dtype=dtype)


def refusal(
    error: BaseException, specs: Sequence[TensorSpec], framework: str, remedy: str
) -> ColumnError:
    """What to raise of an error that the made-up numbers have no part in.

    Args:
        error: Of the framework, or of the user's model.
        specs: The tensors.
        framework: Its name.
        remedy: What to do.
    """
    shown = ", ".join(f"{_names(s)} ({s.dtype}{_shape(s)})" for s in specs)
    refused = ColumnError(
        "columns that the model and its loss can take",
        f"{shown}, of which {framework} says: {' '.join(str(error).split())[:300]}",
        remedy,
    )
    refused.add_note(lines_of(error).rstrip())
    return refused


def _names(spec: TensorSpec) -> str:
    shown = ", ".join(f"'{c.name}'" for c in spec.columns[:5])
    return shown + (f" and {len(spec.columns) - 5} more" if len(spec.columns) > 5 else "")


def _shape(spec: TensorSpec) -> str:
    return f", {spec.shape[0]} columns in one matrix" if spec.shape and spec.shape[0] > 1 else ""
