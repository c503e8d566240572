"""The layout of tensors: which columns they are made of, their dtypes and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

__all__ = ["TEXT", "ColumnPlan", "Columns", "Decoder", "TensorPlan", "TensorSpec", "Use"]

TEXT = "object"
"""The dtype of texts: arrays of Python's bytes, which are UTF-8, as TensorFlow has them."""

# What a text is taken for when memory is counted out.
_TEXT_BYTES = 128

Decoder = Callable[..., np.ndarray] | str
Columns = Sequence[str | Sequence[str]]
Use = Literal["train", "validate", "score"]
T = TypeVar("T")


@dataclass(frozen=True)
class ColumnPlan:
    """How one column is decoded.

    Attributes:
        name: The column.
        kind: `scalar`, `date`, `timestamp`, `array`, `vector`, `bytes`, or `live`: bytes that are
            decoded when a batch is made. Of weights `weight`, or `class`: a class that has one.
        dtype: The numpy dtype it becomes, `TEXT` for texts; None when the decoder decides.
        decode: Turns one binary cell into an array; of a live column that is drawn anew each
            epoch, it also takes `key`, whole numbers that randomness depends on. Of classes, it
            gives the weights of an array of them.
        exact: Refuse numbers that the dtype cannot hold exactly.
    """

    name: str
    kind: str
    dtype: str | None
    decode: Callable[..., np.ndarray] | None = None
    exact: bool = False

    @property
    def is_bytes(self) -> bool:
        """Whether its cells are bytes for a decoder."""
        return self.kind in ("bytes", "live")

    @property
    def shaped(self) -> bool:
        """Whether the shape of a row is known from the data only."""
        return self.kind in ("array", "vector", "bytes", "live")

    @property
    def is_text(self) -> bool:
        """Whether its cells are texts."""
        return self.dtype == TEXT


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that the model or the loss receives.

    Attributes:
        columns: The columns it is made of, side by side.
        dtype: Its dtype; None until the first row is decoded.
        shape: The shape of one row; None until the first row is decoded.
    """

    columns: tuple[ColumnPlan, ...]
    dtype: str | None
    shape: tuple[int, ...] | None

    @property
    def live(self) -> bool:
        """Whether its cells stay bytes until a batch is made of them."""
        return self.columns[0].kind == "live"

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        return self.dtype == TEXT

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, of texts about; shape and dtype must be known."""
        size = _TEXT_BYTES if self.is_text else np.dtype(self.dtype).itemsize
        return size * math.prod(self.shape or ())

    def blank(self, rows: int) -> np.ndarray:
        """Made-up rows: zeros, or empty texts. Shape and dtype must be known."""
        return np.full((rows, *(self.shape or ())), b"" if self.is_text else 0, self.dtype)

    @property
    def name(self) -> str:
        """The column, or the first of them and how many follow."""
        extra = len(self.columns) - 1
        return self.columns[0].name + (f" and {extra} more" if extra else "")


@dataclass(frozen=True)
class TensorPlan:
    """The tensors of a frame.

    Attributes:
        features: What the model is called with.
        labels: What the loss compares with.
        weight: What each row weighs in the loss: the product of its columns. None for 1.
    """

    features: tuple[TensorSpec, ...]
    labels: tuple[TensorSpec, ...]
    weight: TensorSpec | None = None

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Features, then labels, then the weight if there is one."""
        weights = () if self.weight is None else (self.weight,)
        return self.features + self.labels + weights

    def split(self, parts: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...], T | None]:
        """What belongs to the tensors, one for each, as features, labels and the weight."""
        cut = len(self.features)
        end = cut + len(self.labels)
        weight = None if self.weight is None else parts[end]
        return tuple(parts[:cut]), tuple(parts[cut:end]), weight

    @property
    def columns(self) -> list[str]:
        """Every column needed, once, in the order of first use."""
        return list(dict.fromkeys(c.name for t in self.tensors for c in t.columns))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in all tensors, at least 1; their shapes must be known."""
        return max(1, sum(t.row_bytes for t in self.tensors))

    def resolved(self, layout: Sequence[tuple[str, tuple[int, ...]]]) -> TensorPlan:
        """The plan with the dtypes and shapes that were found in the data."""
        found = zip(self.tensors, layout, strict=True)
        specs = [replace(t, dtype=d, shape=tuple(s)) for t, (d, s) in found]
        return TensorPlan(*self.split(specs))
