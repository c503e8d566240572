"""Prediction on arrays: batches into a model, its outputs as Arrow columns.

Of the framework only a `Predictor` is known: arrays in, arrays out.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo.errors import InputError
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import raise_flaws
from zoo.orca.data.tensors.plan import TensorPlan

__all__ = [
    "Faults",
    "Kind",
    "Kinds",
    "Outputs",
    "Predictor",
    "SentModel",
    "Tried",
    "arrow_type",
    "joined",
    "kinds_of",
    "outputs_of",
    "predict_arrow",
    "prediction_kinds",
    "with_prediction",
]

_log = logging.getLogger(__name__)

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


class Tried:
    """A predictor that remembers what it said of the rows before.

    Args:
        predictor: Says it.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._seen: tuple[Any, Outputs] | None = None

    def __call__(self, arrays: Sequence[np.ndarray]) -> Outputs:
        """Predict."""
        outputs = self._predictor(arrays)
        self._seen = ([(a.dtype.name, a.shape[1:]) for a in arrays], outputs)
        return outputs

    def of_zeros(self, plan: TensorPlan) -> Outputs:
        """What it says of made-up rows, which it may have seen when the plan was made."""
        if self._seen is not None and self._seen[0] == [(t.dtype, t.shape) for t in plan.features]:
            return self._seen[1]
        return self([spec.blank(2) for spec in plan.features])


@dataclass(frozen=True)
class SentModel:
    """A model on its way to the executors.

    Attributes:
        blob: As it is now.
        open: Of its framework: makes a predictor of the blob.
        key: Its name, the same in calls that send the same model: processes then open it once.
            None where it may be another each time.
    """

    blob: bytes
    open: Callable[[bytes], Predictor]
    key: str | None = None


@dataclass(frozen=True)
class Kind:
    """What the output of one row is.

    Attributes:
        dtype: Of its numbers, in numpy's words.
        dims: 0 for one number, 1 for several, more for arrays.
    """

    dtype: str
    dims: int


@dataclass(frozen=True)
class Faults:
    """What becomes of rows that cannot be predicted: an error, or a prediction that is null.

    Attributes:
        nulls: Those with a null among their features have none.
        errors: Nor have those that fail in any way.
    """

    nulls: bool = False
    errors: bool = False

    @classmethod
    def of(cls, on_null: str, on_error: str) -> Faults:
        """In the words of `predict`.

        Raises:
            InputError: A word is another one.
        """
        for name, value, usual in (("on_null", on_null, "error"), ("on_error", on_error, "raise")):
            if value not in (usual, "null"):
                raise InputError(f"{name} as {usual!r} or 'null'", repr(value), "Choose one.")
        return cls(on_null == "null", on_error == "null")


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
    predictor: Predictor,
    plan: TensorPlan,
    sample: Callable[[], pa.Table],
    faults: Faults = Faults(),  # noqa: B008 - it is frozen
) -> Kinds:
    """What a model's outputs of one row are. The model is called once, if it was not before.

    Args:
        predictor: The model.
        plan: The features.
        sample: Gives some rows of the columns; called only when the plan does not know the shapes,
            or when the model cannot take zeros.
        faults: What becomes of rows that cannot be predicted.

    Raises:
        ColumnError: Cells of the sample cannot become numbers.
        Exception: Whatever the model raises.
    """
    if all(t.shape is not None and t.dtype is not None for t in plan.features):
        with contextlib.suppress(Exception):  # zeros are a guess; the frame's own rows decide
            tried = predictor if isinstance(predictor, Tried) else Tried(predictor)
            return kinds_of(tried.of_zeros(plan))
    table = sample().combine_chunks()
    rows = [batch for batch in table.to_batches() if batch.num_rows]
    if faults.nulls or faults.errors:
        rows = [b.slice(i, 1) for b in map(_whole_rows, rows) for i in range(b.num_rows)]
    for batch in rows:
        decoder = PlanDecoder(plan)
        try:
            for arrays in decoder.pieces(batch):
                return kinds_of(predictor(arrays))
            raise_flaws(list(decoder.flaws.values()))
        except Exception:
            if not faults.errors:
                raise
    return Kind("float32", 0)


def _whole_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that hold no null."""
    return batch.filter(pa.array(~_holes(batch)))


def _holes(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows hold a null, in a column or inside an array."""
    found = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        found |= column.is_null().to_numpy(zero_copy_only=False)
        values, owner = column, np.arange(batch.num_rows)
        while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            lengths = pc.fill_null(pc.list_value_length(values), 0)
            owner = np.repeat(owner, lengths.to_numpy(zero_copy_only=False))
            values = values.flatten()
            found[owner[values.is_null().to_numpy(zero_copy_only=False)]] = True
    return found


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
    predictor: Predictor,
    decoder: PlanDecoder,
    batch: pa.RecordBatch,
    kinds: Kinds,
    batch_size: int,
    faults: Faults = Faults(),  # noqa: B008 - it is frozen
) -> pa.Array:
    """The outputs of the rows of an Arrow batch, as a column.

    Args:
        predictor: The model.
        decoder: Of the features.
        batch: Their columns.
        kinds: From `prediction_kinds`.
        batch_size: Rows that the model sees at once.
        faults: What becomes of rows that cannot be predicted.

    Raises:
        ColumnError: Cells cannot become numbers.
        InputError: The outputs are not of these kinds.
    """

    def column(rows: pa.RecordBatch) -> pa.Array:
        if not rows.num_rows:
            return pa.array([], arrow_type(kinds))
        outputs = outputs_of(predictor, decoder.pieces(rows), batch_size)
        flaws = list(decoder.flaws.values())
        decoder.flaws.clear()  # other rows may do
        raise_flaws(flaws)
        return _to_arrow(joined(outputs, rows.num_rows), kinds)

    predict = column if not faults.errors else lambda rows: _or_null(column, rows, kinds)
    holes = _holes(batch) if faults.nulls else np.zeros(0, dtype=bool)
    if not holes.any():
        return predict(batch)
    found = predict(batch.filter(pa.array(~holes)))
    return found.take(pa.array(np.cumsum(~holes) - 1, mask=holes))


def _or_null(
    column: Callable[[pa.RecordBatch], pa.Array], rows: pa.RecordBatch, kinds: Kinds
) -> pa.Array:
    """The column of rows, with nulls for those that fail: halves are tried, and halves of them."""
    try:
        return column(rows)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the row has no prediction
        if rows.num_rows == 1:
            _log.warning("a row has no prediction: %s: %s", type(exc).__name__, exc)
            return pa.nulls(1, arrow_type(kinds))
    half = rows.num_rows // 2
    parts = (rows.slice(0, half), rows.slice(half))
    return pa.concat_arrays([_or_null(column, part, kinds) for part in parts])


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
    return _lists(flat.cast(_WIDER.get(plain, plain)), values.shape)


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
    return _lists(flat, values.shape)


def _lists(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    """The numbers of an array of this shape, rows in front, as one list for each row."""
    nested = flat
    for dim in range(len(shape) - 1, 0, -1):
        offsets = np.arange(math.prod(shape[:dim]) + 1) * shape[dim]
        nested = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), nested)
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
