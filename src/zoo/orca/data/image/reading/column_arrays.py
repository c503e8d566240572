"""Columns of a dataset as NumPy arrays, some rows at a time: what tensors are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, Schema, SchemaField
from zoo.orca.data.image.ndarray_codec import decode_ndarray

__all__ = ["TEXT", "ColumnArrays", "Shape", "plan_arrays"]

Shape = tuple[int | None, ...] | None
"""Lengths of a value's axes, None where any will do; None for any number of axes."""

TEXT = np.dtype(object)
"""The type of texts and bytes."""

_DTYPES = {
    DType.STRING: TEXT,
    DType.BYTES: TEXT,
    DType.INT32: np.dtype(np.int32),
    DType.FLOAT32: np.dtype(np.float32),
    DType.UINT8: np.dtype(np.uint8),
}


@dataclass(frozen=True)
class ColumnArrays:
    """How a column becomes arrays.

    Args:
        name: The column.
        dtype: Of the values; `TEXT` for texts and bytes.
        shape: Of a value.
        decode: Makes an array of the bytes in the column; None where values are as they are.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape = ()
    decode: Callable[[bytes], Any] | None = None

    @property
    def stacks(self) -> bool:
        """Whether all values have one shape, so that many make one array."""
        return self.shape is not None and None not in self.shape

    def read(
        self, column: pa.ChunkedArray, pool: ThreadPoolExecutor | None = None
    ) -> npt.NDArray[Any]:
        """Return the values of some rows: stacked, or an array of arrays when shapes differ.

        Args:
            column: The rows, at least one.
            pool: Threads that decode; the caller's own when None.

        Raises:
            InputError: A value is missing, cannot be decoded or is not as planned.
        """
        if column.null_count:
            raise InputError(
                f"a value in each row of column {self.name!r}",
                f"{column.null_count} missing ones",
                "Fill them before the dataset is written.",
            )
        if self.decode is None:
            return self._plain(column)
        values = column.to_pylist()
        decoded = list(pool.map(self._array, values) if pool else map(self._array, values))
        if self.stacks:
            return np.stack(decoded)
        apart = np.empty(len(decoded), object)
        for row, array in enumerate(decoded):
            apart[row] = array
        return apart

    def _plain(self, column: pa.ChunkedArray) -> npt.NDArray[Any]:
        if self.dtype != TEXT:
            return self._cast(column.to_numpy())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.binary())
        values: npt.NDArray[Any] = np.array(column.to_pylist(), object)
        return values

    def _array(self, value: bytes) -> npt.NDArray[Any]:
        assert self.decode is not None
        try:
            array = np.asarray(self.decode(value))
        except InputError as exc:
            raise InputError(
                exc.expected, f"{exc.received} (column {self.name!r})", exc.remedy
            ) from exc
        lengths = zip(array.shape, self.shape or (), strict=False)
        if self.shape is not None and (
            array.ndim != len(self.shape) or any(n not in (have, None) for have, n in lengths)
        ):
            raise InputError(
                f"values of shape {self.shape} in column {self.name!r}",
                f"one of {array.shape}",
                "Pass output_shapes, or a decoder that gives one size.",
            )
        return self._cast(array)

    def _cast(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Change the type; numbers must stay what they are, but for the digits of floats."""
        if array.dtype == self.dtype:
            return array
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                cast = _as_bytes(array) if self.dtype == TEXT else array.astype(self.dtype)
        except (ValueError, TypeError) as exc:
            raise self._misfit(str(exc)) from exc
        if self.dtype != TEXT and not _same(cast, array):
            raise self._misfit(f"values of {array.dtype} from {array.min()} to {array.max()}")
        return cast

    def _misfit(self, received: str) -> InputError:
        return InputError(
            f"values that fit {self.dtype} in column {self.name!r}",
            received,
            "Pass output_types with a type that holds them.",
        )


def _same(cast: npt.NDArray[Any], array: npt.NDArray[Any]) -> bool:
    if array.dtype.kind == "f" and cast.dtype.kind in "fc":
        # Digits may go, as they do where a model works in that type. Numbers become no infinity.
        return bool((np.isinf(cast) == np.isinf(array)).all())
    with np.errstate(invalid="ignore"):
        back = cast.astype(array.dtype)
    return np.array_equal(back, array) and np.array_equal(cast, array)


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "US":
        raise TypeError(f"{array.dtype} is no text")
    flat = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
    return np.array(flat, object).reshape(array.shape)


def plan_arrays(
    schema: Schema,
    names: Sequence[str],
    *,
    decoders: Mapping[str, Callable[[bytes], Any] | None] | None = None,
    dtypes: Mapping[str, np.dtype[Any]] | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> list[ColumnArrays]:
    """Plan how columns become arrays.

    Args:
        schema: The columns of the dataset.
        names: Those that are wanted.
        decoders: Decoders for columns that are stored as bytes. IMAGE columns stay bytes without
            one, NDARRAY columns have theirs; None as a decoder keeps the bytes.
        dtypes: Other types than the schema's.
        shapes: Other shapes than the schema's.

    Raises:
        InputError: A name is of no wanted column, or a type or shape does not go with its column.
    """
    chosen, types, forms = dict(decoders or {}), dict(dtypes or {}), dict(shapes or {})
    unknown = (chosen.keys() | types.keys() | forms.keys()) - set(names)
    if unknown:
        raise InputError(f"names of {list(names)}", str(sorted(map(str, unknown))), "Correct them.")
    return [_plan(name, schema[name], chosen, types.get(name), forms) for name in names]


def _plan(
    name: str,
    field: SchemaField,
    decoders: Mapping[str, Callable[[bytes], Any] | None],
    dtype: np.dtype[Any] | None,
    shapes: Mapping[str, Shape],
) -> ColumnArrays:
    own = decode_ndarray if field.feature_type is FeatureType.NDARRAY else None
    decode = decoders.get(name, own)
    if decode is not None and field.feature_type is FeatureType.SCALAR:
        raise InputError("decoders for IMAGE and NDARRAY columns", repr(name), "Remove it.")
    if decode is None:
        is_scalar = field.feature_type is FeatureType.SCALAR
        stored = _DTYPES[field.dtype] if is_scalar else TEXT
        if shapes.get(name) not in (None, ()):
            raise InputError(f"shape () for column {name!r}", str(shapes[name]), "Correct it.")
        if dtype is not None and (dtype == TEXT) != (stored == TEXT):
            raise InputError(
                f"{'text' if stored == TEXT else 'a number'} as the type of column {name!r}",
                str(dtype),
                "Correct output_types, or pass a decoder for the column.",
            )
        return ColumnArrays(name, stored if dtype is None else dtype)
    shape, made = _form(name, field, decode, decode is own)
    told = made if dtype is None else dtype
    if told is None:
        raise InputError(
            f"a type for column {name!r}",
            "a decoder without an attribute dtype",
            "Pass output_types.",
        )
    return ColumnArrays(name, told, shapes.get(name, shape), decode)


def _form(
    name: str, field: SchemaField, decode: Callable[[bytes], Any], is_own: bool
) -> tuple[Shape, np.dtype[Any] | None]:
    """The shape and type of what a decoder gives, as far as it or the schema tells."""
    if is_own:
        return tuple(None if n < 0 else n for n in field.shape), _DTYPES[field.dtype]
    shape, dtype = getattr(decode, "shape", None), getattr(decode, "dtype", None)
    return (None if shape is None else tuple(shape)), (None if dtype is None else np.dtype(dtype))
