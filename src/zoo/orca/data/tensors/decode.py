"""From Arrow batches to typed arrays: pure functions, no Spark in sight.

A cell that cannot become numbers is counted, not raised: a frame is read once, and the user gets
one error with the number of rows, however many partitions hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo.orca.data.tensors.flaws import (
    Flaw,
    add_flaw,
    bad_rows,
    count_infinite,
    count_weightless,
)
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.tensor_shard import Blobs, Tensor

__all__ = ["CellError", "PlanDecoder", "decode_tensor"]

_EXAMPLE_LENGTH = 200
_PIECE_BYTES = 16 << 20
# Rows that are decoded to learn how large a row is: an image may have megabytes.
_UNKNOWN_ROWS = 32
# What a cell that stays bytes is taken for when rows are counted out.
_LIVE_BYTES = 64 << 10


class CellError(Exception):
    """The flaws of a batch, one for each column that has any.

    Attributes:
        flaws: All of them.
        flaw: The first.
    """

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__(*flaws)
        self.flaws, self.flaw = flaws, flaws[0]


class PlanDecoder:
    """Decodes the batches of one partition, and counts the cells that cannot be.

    Args:
        plan: The tensors; its columns are those of the batches, in order.
        batch_size: Pieces of more rows than this have a multiple of it.

    Attributes:
        tensors: With shapes and dtypes known after the first rows.
        flaws: What was found so far, by column and kind.
        remarks: NaN and infinite numbers so far, by column and kind.
    """

    def __init__(self, plan: TensorPlan, batch_size: int = 1) -> None:
        self._batch_size = batch_size
        self.tensors = list(plan.tensors)
        self.flaws: dict[tuple[str, str], Flaw] = {}
        self.remarks: dict[tuple[str, str], Flaw] = {}
        self._cut = len(plan.features)
        self._weight = plan.weight
        at = {name: i for i, name in enumerate(plan.columns)}
        self._places = [[at[c.name] for c in t.columns] for t in plan.tensors]

    def pieces(self, batch: pa.RecordBatch) -> Iterator[list[Any]]:
        """The rows of a batch, some megabytes at a time; none any more after a flaw.

        Yields:
            One array for each tensor, or blobs for one whose cells are decoded later.
        """
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, self._piece_rows())
            start += piece.num_rows
            arrays = self._decode(piece)
            if not self.flaws:
                self.tensors = list(map(_resolved, self.tensors, arrays))
                yield arrays

    def _piece_rows(self) -> int:
        size = 0
        for spec in self.tensors:
            if spec.live:
                size += _LIVE_BYTES
                continue
            if spec.shape is None or spec.dtype is None:
                return _UNKNOWN_ROWS
            size += spec.row_bytes
        rows = max(1, _PIECE_BYTES // max(1, size))
        return rows - rows % self._batch_size if rows > self._batch_size else rows

    def _decode(self, piece: pa.RecordBatch) -> list[Tensor]:
        columns: list[pa.Array] = piece.columns
        arrays: list[Tensor] = []
        flaws: dict[tuple[str, str], Flaw] = {}
        remarks: dict[tuple[str, str], Flaw] = {}
        for k, (spec, places) in enumerate(zip(self.tensors, self._places, strict=True)):
            try:
                cells = [columns[i] for i in places]
                if spec.live:
                    blobs = _blobs(spec, cells[0])
                    self.tensors[k] = _live_spec(spec, blobs)
                    arrays.append(blobs)
                else:
                    array = decode_tensor(spec, cells, label=k >= self._cut)
                    arrays.append(array)
                    remarks |= _remarks(spec, cells, array)
                    if self._weight is not None and k == len(self.tensors) - 1:
                        count_weightless(remarks, spec.columns[0].name, array)
            except CellError as exc:
                # A column may be in several tensors; its rows are bad once.
                flaws |= {(flaw.column, flaw.kind): flaw for flaw in exc.flaws}
        for flaw in flaws.values():
            add_flaw(self.flaws, flaw)
        for remark in remarks.values():
            add_flaw(self.remarks, remark)
        return arrays


def _resolved(spec: TensorSpec, rows: Tensor) -> TensorSpec:
    """The tensor with the dtype and shape of its rows."""
    if isinstance(rows, Blobs):
        return spec
    return replace(spec, dtype=rows.dtype.name, shape=rows.shape[1:])


def _remarks(
    spec: TensorSpec, cells: Sequence[pa.Array], rows: np.ndarray
) -> dict[tuple[str, str], Flaw]:
    """The columns of a tensor in which there are NaN or infinite numbers."""
    found: dict[tuple[str, str], Flaw] = {}
    count_infinite(found, spec.columns[0].name, rows)
    if not found or len(cells) == 1:
        return found
    found.clear()
    for column, array in zip(spec.columns, cells, strict=True):
        count_infinite(found, column.name, _decode(column, array, label=False))
    return found


def _blobs(spec: TensorSpec, array: pa.Array) -> Blobs:
    """Cells that are decoded later; none of them is empty."""
    name = spec.columns[0].name
    if array.null_count:
        raise CellError(Flaw(name, "null", array.null_count))
    blobs = Blobs.from_arrow(array)
    if empty := int(np.count_nonzero(np.diff(blobs.ends) == 0)):
        raise CellError(Flaw(name, "undecodable", empty, "zero bytes"))
    return blobs


def _live_spec(spec: TensorSpec, blobs: Blobs) -> TensorSpec:
    """The tensor with the dtype and shape that its first cell decodes to."""
    if spec.shape is not None:
        return spec
    plan = spec.columns[0]
    assert plan.decode is not None
    try:
        cell = _as_numbers(plan.decode(blobs[0]))
    except Exception as exc:  # noqa: BLE001 - whatever a user's decoder raises is a bad cell
        example = f"{type(exc).__name__}: {exc}"[:_EXAMPLE_LENGTH]
        raise CellError(Flaw(plan.name, "undecodable", 1, example)) from None
    return replace(spec, dtype=cell.dtype.name, shape=cell.shape)


def decode_tensor(
    spec: TensorSpec, columns: Sequence[pa.Array], *, label: bool = False
) -> np.ndarray:
    """Decode the columns of one tensor.

    Args:
        spec: The tensor; a shape of None means that this batch decides it.
        columns: One Arrow array of n rows for each column.
        label: Refuse NaN.

    Returns:
        Shape (n, *row shape), C order. It may share memory with the column, read-only then.

    Raises:
        CellError: Cells cannot become numbers.
    """
    rows = len(columns[0])
    if not rows:
        return np.empty((0, *(spec.shape or ())), dtype=spec.dtype)
    parts: list[np.ndarray] = []
    flaws: list[Flaw] = []
    for plan, array in zip(spec.columns, columns, strict=True):
        try:
            parts.append(_decode(plan, array, label))
        except CellError as exc:
            flaws.extend(exc.flaws)
    if flaws:
        raise CellError(*flaws)
    if len(parts) > 1:
        return _side_by_side(spec, parts, rows)
    out = _cast(spec.columns[0], parts[0])
    if spec.shape == (1,) and out.ndim == 1:
        out = out.reshape(rows, 1)
    if spec.shape is not None and out.shape[1:] != spec.shape:
        raise _ragged(spec.columns[0], rows, f"shapes {spec.shape} and {out.shape[1:]}")
    if spec.dtype is not None and out.dtype != spec.dtype:
        raise _ragged(spec.columns[0], rows, f"dtypes {spec.dtype} and {out.dtype}")
    return out


def _side_by_side(spec: TensorSpec, parts: Sequence[np.ndarray], rows: int) -> np.ndarray:
    widths = [int(np.prod(p.shape[1:], dtype=np.int64)) for p in parts]
    if spec.shape is not None and sum(widths) != spec.shape[0]:
        known = list(zip(spec.columns, widths, strict=True))
        wide = next((plan for plan, _ in known if plan.shaped), spec.columns[0])
        found = ", ".join(f"{plan.name} {width}" for plan, width in known if plan.shaped)
        raise _ragged(wide, rows, f"widths {found}, in all {sum(widths)} and not {spec.shape[0]}")
    out = np.empty((rows, sum(widths)), dtype=spec.dtype)
    at = 0
    for plan, part, width in zip(spec.columns, parts, widths, strict=True):
        _cast(plan, part.reshape(rows, width), out[:, at : at + width])
        at += width
    return out


def _decode(plan: ColumnPlan, array: pa.Array, label: bool) -> np.ndarray:
    """Cells as an array of n rows that is fit for the dtype of the plan, and not yet of it."""
    if array.null_count and plan.kind != "array":  # an array may hold more of them
        raise CellError(Flaw(plan.name, "null", array.null_count))
    values = _DECODERS[plan.kind](plan, array)
    if plan.exact:
        _refuse_inexact(plan, values)
    if label and values.dtype.kind == "f":
        bad = bad_rows(np.isnan(values))
        if bad:
            raise CellError(Flaw(plan.name, "nan", bad))
    return values


def _cast(plan: ColumnPlan, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    try:
        with np.errstate(over="raise", invalid="ignore"):
            if out is None:
                return values.astype(plan.dtype or values.dtype, order="C", copy=False)
            out[...] = values
            return out
    except FloatingPointError:
        with np.errstate(over="ignore"):
            lost = np.isinf(values.astype(plan.dtype)) & np.isfinite(values)
        raise CellError(Flaw(plan.name, "overflow", bad_rows(lost), str(values[lost][0]))) from None


def _flat(array: pa.Array) -> np.ndarray:
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def _scalar(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    return _flat(array)


def _weights(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    values = _flat(array).astype(np.float64, copy=False)
    if bad := bad_rows(odd := ~(np.isfinite(values) & (values >= 0))):
        raise CellError(Flaw(plan.name, "weight", bad, str(values[odd][0])))
    return values


def _classes(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    assert plan.decode is not None
    return plan.decode(_flat(array).astype(np.float64))


def _date(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    return _flat(array.cast(pa.int32()))


def _timestamp(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    micros = array.cast(pa.timestamp("us", array.type.tz)).cast(pa.int64())
    return np.asarray(_flat(micros) / 1e6)


def _array(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    shape, values = [], array
    while _is_list(values):
        if values.null_count:
            raise _array_flaw(plan, array)
        lengths = _flat(pc.list_value_length(values))
        length = int(lengths[0]) if len(lengths) else 0
        if (lengths != length).any():
            raise _array_flaw(plan, array)
        shape.append(length)
        # Not `.values`: behind a slice it still has the elements of the whole array.
        values = values.flatten()
    if values.null_count:
        raise _array_flaw(plan, array)
    return _flat(values).reshape(len(array), *shape)


def _array_flaw(plan: ColumnPlan, array: pa.Array) -> CellError:
    """Count the rows that are null or hold one, or else those of another length than the first."""
    holes, odd = np.zeros((2, len(array)), dtype=bool)
    values, owner, example = array, np.arange(len(array)), ""
    while _is_list(values):
        holes[owner[_flat(values.is_null())]] = True
        lengths = _flat(pc.fill_null(pc.list_value_length(values), 0))
        if (other := lengths != lengths[:1]).any():
            odd[owner[other]] = True
            example = example or f"lengths {int(lengths[0])} and {int(lengths[other][0])}"
        owner, values = np.repeat(owner, lengths), values.flatten()
    holes[owner[_flat(values.is_null())]] = True
    if holes.any():
        inside = "" if array.null_count else "inside the arrays"
        return CellError(Flaw(plan.name, "null", int(np.count_nonzero(holes)), inside))
    return _ragged(plan, int(np.count_nonzero(odd)), example)


def _is_list(array: pa.Array) -> bool:
    return bool(pa.types.is_list(array.type) or pa.types.is_large_list(array.type))


def _vector(plan: ColumnPlan, array: pa.StructArray) -> np.ndarray:
    """ML vectors travel as (type, size, indices, values); type 1 is dense, 0 is sparse."""
    rows = len(array)
    dense = _flat(array.field("type")) == 1
    values, indices = array.field("values"), array.field("indices")
    counts = _flat(pc.list_value_length(values)).astype(np.int64)
    sizes = np.where(dense, counts, _flat(pc.fill_null(array.field("size"), 0)))
    size = int(sizes[0])
    odd = sizes != size
    if odd.any():
        example = f"lengths {size} and {int(sizes[odd][0])}"
        raise _ragged(plan, int(np.count_nonzero(odd)), example)
    flat = _flat(values.flatten())
    if dense.all():
        return flat.reshape(rows, size)
    out = np.zeros((rows, size), dtype=flat.dtype)
    of_dense = np.repeat(dense, counts)
    out[dense] = flat[of_dense].reshape(-1, size)
    row = np.repeat(np.arange(rows), np.where(dense, 0, counts))
    out[row, _flat(indices.filter(pa.array(~dense)).flatten())] = flat[~of_dense]
    return out


def _binary(plan: ColumnPlan, array: pa.Array) -> np.ndarray:
    assert plan.decode is not None
    out: np.ndarray | None = None
    bad, odd, example, shapes = 0, 0, "", ""
    for row, cell in enumerate(array):
        try:
            image = _as_numbers(plan.decode(cell.as_py()))
        except Exception as exc:  # noqa: BLE001 - whatever a user's decoder raises is a bad cell
            bad, example = bad + 1, example or f"{type(exc).__name__}: {exc}"[:_EXAMPLE_LENGTH]
            continue
        if out is None:
            out = np.empty((len(array), *image.shape), dtype=image.dtype)
        if image.shape != out.shape[1:]:
            odd, shapes = odd + 1, shapes or f"shapes {out.shape[1:]} and {image.shape}"
        elif image.dtype != out.dtype:
            odd, shapes = odd + 1, shapes or f"dtypes {out.dtype} and {image.dtype}"
        else:
            out[row] = image
    if bad:
        raise CellError(Flaw(plan.name, "undecodable", bad, example))
    if odd:
        raise _ragged(plan, odd, shapes)
    assert out is not None
    return out


def _as_numbers(decoded: object) -> np.ndarray:
    image = np.asarray(decoded)
    if image.dtype.kind not in "iufb" or image.dtype.itemsize > 8:
        raise TypeError(f"the decoder returned {type(decoded).__name__} of dtype {image.dtype}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


_DECODERS = {
    "array": _array,
    "bytes": _binary,
    "class": _classes,
    "date": _date,
    "scalar": _scalar,
    "timestamp": _timestamp,
    "vector": _vector,
    "weight": _weights,
}


def _ragged(plan: ColumnPlan, rows: int, example: str) -> CellError:
    return CellError(Flaw(plan.name, "ragged", rows, example))


def _refuse_inexact(plan: ColumnPlan, values: np.ndarray) -> None:
    wanted = np.dtype(plan.dtype)
    if not values.size or values.dtype == wanted:
        return
    if wanted.kind == "f":
        # Every whole number up to here is held exactly; looking for the largest is quick.
        limit = 2 ** (np.finfo(wanted).nmant + 1)
        if values.max() <= limit and values.min() >= -limit:
            return
    with np.errstate(all="ignore"):
        lost = values.astype(wanted).astype(values.dtype) != values
        if wanted.kind == "u":
            lost |= values < 0
    if lost.any():
        raise CellError(Flaw(plan.name, "inexact", bad_rows(lost), str(values[lost][0])))
