"""Prediction on arrays: batches into a model, its outputs as Arrow columns.

Of the framework only a `Predictor` is known: arrays in, arrays out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from zoo.errors import InputError
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import raise_flaws
from zoo.orca.data.tensors.plan import TensorPlan

__all__ = [
    "Kind",
    "Kinds",
    "Outputs",
    "Predictor",
    "SentModel",
    "arrow_type",
    "joined",
    "kinds_of",
    "outputs_of",
    "predict_arrow",
    "prediction_kinds",
    "with_prediction",
]

Outputs = np.ndarray | list[np.ndarray] | dict[str, np.ndarray]
"""Of a model: one output, several, or several with names; rows in front."""

Predictor = Callable[[Sequence[np.ndarray]], Outputs]
"""A model: features of a batch in, its outputs out."""

# Whole numbers up to here are exact in a vector, whose numbers are float64.
_EXACT = 1 << 53
_NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "f2", "f4", "f8"]
# Spark has no unsigned numbers and no half precision: the next that holds them.
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.float16(): pa.float32(),
}


@dataclass(frozen=True)
class SentModel:
    """A model on its way to the executors.

    Attributes:
        blob: As it is now.
        open: Of its framework: makes a predictor of the blob.
    """

    blob: bytes
    open: Callable[[bytes], Predictor]


@dataclass(frozen=True)
class Kind:
    """What the output of one row is.

    Attributes:
        dtype: Of its numbers, in numpy's words.
        dims: 0 for one number, 1 for several, more for arrays.
    """

    dtype: str
    dims: int


Kinds = Kind | list[Kind] | dict[str, Kind]
"""Of a model's outputs, in their form."""


def kinds_of(outputs: Outputs) -> Kinds:
    """What the outputs of a batch are.

    Raises:
        InputError: One has no entry for each row, or holds no numbers.
    """
    if isinstance(outputs, dict):
        return {name: _kind(output) for name, output in outputs.items()}
    if isinstance(outputs, list):
        return [_kind(output) for output in outputs]
    return _kind(outputs)


def _kind(output: np.ndarray) -> Kind:
    if not output.ndim:
        raise InputError(
            "a model that returns a tensor with one entry for each row, or several such tensors",
            "one with no dimension",
            "predict needs one output for each row.",
        )
    if output.dtype.str[1:] not in _NUMBERS and output.dtype.kind != "b":
        raise InputError(
            "a model that returns numbers or booleans that a column of Spark can hold",
            f"outputs of type {output.dtype}",
            "Convert them at the end of the model; of complex numbers return both parts.",
        )
    return Kind(output.dtype.name, _squeezed(output).ndim - 1)


def prediction_kinds(
    predictor: Predictor, plan: TensorPlan, sample: Callable[[], pa.Table]
) -> Kinds:
    """What a model's outputs of one row are. The model is called once.

    Args:
        predictor: The model.
        plan: The features.
        sample: Gives a row or two of the columns; called only when the plan does not know the
            shapes, or when the model cannot take zeros.

    Raises:
        ColumnError: Cells of the sample cannot become numbers.
        Exception: Whatever the model raises.
    """
    if all(t.shape is not None and t.dtype is not None for t in plan.features):
        zeros = [np.zeros((2, *(t.shape or ())), dtype=t.dtype) for t in plan.features]
        with contextlib.suppress(Exception):  # zeros are a guess; the frame's own rows decide
            return kinds_of(predictor(zeros))
    table = sample()
    if not table.num_rows:
        return Kind("float32", 0)
    decoder = PlanDecoder(plan)
    for arrays in decoder.pieces(table.combine_chunks().to_batches()[0]):
        return kinds_of(predictor(arrays))
    raise_flaws(list(decoder.flaws.values()))
    raise AssertionError("rows, and neither arrays nor flaws of them")


def outputs_of(
    predictor: Predictor, pieces: Iterable[Sequence[np.ndarray]], batch_size: int
) -> list[Outputs]:
    """The outputs of rows, batch by batch.

    Args:
        predictor: The model.
        pieces: Arrays of the features, some rows at a time.
        batch_size: Rows that the model sees at once.
    """
    return [
        predictor([array[i : i + batch_size] for array in arrays])
        for arrays in pieces
        for i in range(0, len(arrays[0]), batch_size)
    ]


def joined(batches: Sequence[Outputs], rows: int) -> Outputs:
    """The outputs of batches as one, without trailing dimensions of one.

    Args:
        batches: One or more.
        rows: In all.

    Raises:
        InputError: There is not one output for each row.
    """
    first = batches[0]
    if isinstance(first, dict):
        named = {name: [b[name] for b in batches if isinstance(b, dict)] for name in first}
        return {name: _join(parts, rows) for name, parts in named.items()}
    if isinstance(first, list):
        each = zip(*(b for b in batches if isinstance(b, list)), strict=True)
        return [_join(parts, rows) for parts in each]
    return _join([b for b in batches if isinstance(b, np.ndarray)], rows)


def _join(parts: Sequence[np.ndarray], rows: int) -> np.ndarray:
    if any(not part.ndim for part in parts) or sum(map(len, parts)) != rows:
        raise InputError(
            "a model that returns one output for each row",
            f"{[part.shape for part in parts][:3]} for {rows} rows",
            "predict pairs rows and outputs; keep the first dimension.",
        )
    return _squeezed(np.concatenate(parts))


def _squeezed(output: np.ndarray) -> np.ndarray:
    while output.ndim > 1 and output.shape[-1] == 1:
        output = output.squeeze(-1)
    return output


def predict_arrow(
    predictor: Predictor, decoder: PlanDecoder, batch: pa.RecordBatch, kinds: Kinds, batch_size: int
) -> pa.Array:
    """The outputs of the rows of an Arrow batch, as a column.

    Args:
        predictor: The model.
        decoder: Of the features.
        batch: Their columns.
        kinds: From `prediction_kinds`.
        batch_size: Rows that the model sees at once.

    Raises:
        ColumnError: Cells cannot become numbers.
        InputError: The outputs are not of these kinds.
    """
    if not batch.num_rows:
        return pa.array([], arrow_type(kinds))
    outputs = outputs_of(predictor, decoder.pieces(batch), batch_size)
    raise_flaws(list(decoder.flaws.values()))
    return _to_arrow(joined(outputs, batch.num_rows), kinds)


def arrow_type(kinds: Kinds) -> pa.DataType:
    """The type of the column.

    One number has its own type, several are float64, which vectors hold; so are several outputs,
    each flat. Arrays of more dimensions have the type of their numbers, and so has everything
    under a name.
    """
    if isinstance(kinds, dict):
        return pa.struct([(name, _nested(kind)) for name, kind in kinds.items()])
    if isinstance(kinds, list):
        return pa.list_(pa.list_(pa.float64()))
    return pa.list_(pa.float64()) if kinds.dims == 1 else _nested(kinds)


def _nested(kind: Kind) -> pa.DataType:
    plain = pa.from_numpy_dtype(kind.dtype)
    nested = _WIDER.get(plain, plain)
    for _ in range(kind.dims):
        nested = pa.list_(nested)
    return nested


def _to_arrow(outputs: Outputs, kinds: Kinds) -> pa.Array:
    if isinstance(kinds, dict) and isinstance(outputs, dict) and kinds.keys() == outputs.keys():
        arrays = [_column(outputs[name], kind) for name, kind in kinds.items()]
        return pa.StructArray.from_arrays(arrays, names=list(kinds))
    if isinstance(kinds, list) and isinstance(outputs, list) and len(kinds) == len(outputs):
        return _side_by_side([_doubles(o.reshape(len(o), -1)) for o in outputs])
    if isinstance(kinds, Kind) and isinstance(outputs, np.ndarray):
        return _doubles(outputs) if kinds.dims == 1 else _column(outputs, kinds)
    raise _changed(type(outputs).__name__, kinds)


def _changed(received: str, kinds: Kinds) -> InputError:
    return InputError(
        f"outputs of one kind for all rows: {kinds}",
        received,
        "Let the model return the same number, shape and type of tensors for all rows.",
    )


def _column(values: np.ndarray, kind: Kind) -> pa.Array:
    """Numbers, or arrays of them, in the type that was announced."""
    if values.ndim != kind.dims + 1 or not np.can_cast(values.dtype, kind.dtype, "safe"):
        raise _changed(f"{values.dtype} of shape {values.shape}", kind)
    plain = pa.from_numpy_dtype(kind.dtype)
    flat = pa.array(values.reshape(-1).astype(kind.dtype, copy=False))
    return _lists(flat.cast(_WIDER.get(plain, plain)), values.shape[1:])


def _doubles(values: np.ndarray) -> pa.Array:
    """Several numbers for each row, for a vector."""
    if values.ndim != 2:
        raise _changed(f"shape {values.shape}", Kind("float64", 1))
    whole = values.dtype.kind in "iu" and values.itemsize == 8
    if whole and values.size and max(int(values.max()), -int(values.min())) > _EXACT:
        raise InputError(
            "numbers that a vector holds exactly: whole ones up to 2**53",
            f"larger ones, of type {values.dtype}",
            "Return them under a name, {'ids': ...}: a struct keeps their type.",
        )
    flat = pa.array(values.reshape(-1).astype(np.float64, copy=False))
    return _lists(flat, values.shape[1:])


def _lists(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    nested = flat
    for size in reversed(shape):
        offsets = pa.array(np.arange(0, len(nested) + 1, size, dtype=np.int32))
        nested = pa.ListArray.from_arrays(offsets, nested)
    return nested


def _side_by_side(columns: Sequence[pa.Array]) -> pa.Array:
    """The entries of several columns as one list for each row."""
    rows, count = len(columns[0]), len(columns)
    order = np.arange(rows * count).reshape(count, rows).T.reshape(-1)
    together = pa.concat_arrays(list(columns)).take(pa.array(order))
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * count), together)


def with_prediction(
    shard: Mapping[str, Any], outputs: Sequence[Outputs], rows: int
) -> dict[str, Any]:
    """A dict of arrays, and the outputs of its rows under `prediction`.

    Args:
        shard: The dict.
        outputs: Of its batches.
        rows: Of the dict.
    """
    made: Any = joined(outputs, rows) if rows else np.empty(0, dtype=np.float32)
    return {**shard, "prediction": made}
