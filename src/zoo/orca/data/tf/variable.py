"""Arrays of several shapes as one tensor of bytes, which `tf.data` slices like any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError, load_extra

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["VariableArrays"]

# What tf.io.decode_raw reads.
_DTYPES = frozenset(
    ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16")
)


@dataclass(frozen=True)
class VariableArrays:
    """Packs arrays of one type into bytes and shapes, and takes them out again as tensors.

    Args:
        dtype: Of all arrays.
        shape: Of all arrays, None where lengths differ; None when the number of axes does.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __post_init__(self) -> None:
        """Refuse types that TensorFlow cannot read from bytes.

        Raises:
            InputError: The type is one of them.
        """
        if self.dtype.name not in _DTYPES:
            raise InputError(
                f"arrays of several shapes as {sorted(_DTYPES)}", str(self.dtype), "Cast them."
            )

    def pack(self, arrays: Iterable[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the bytes of each array, and their shapes as rows.

        Raises:
            InputError: The arrays have not one number of axes.
        """
        arrays = list(arrays)
        data = np.array([np.asarray(array, self.dtype).tobytes() for array in arrays], object)
        axes = {array.ndim for array in arrays} or {len(self.shape or ())}
        if len(axes) > 1:
            raise InputError(
                "arrays with the same number of axes", f"{sorted(axes)}", "Reshape them."
            )
        shapes = np.array([array.shape for array in arrays], np.int64)
        return data, shapes.reshape(len(arrays), axes.pop())

    def signature(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """Return the form of what `pack` gives, for a `tf.data.Dataset`."""
        tf = load_extra("tensorflow", "tensorflow")
        axes = None if self.shape is None else len(self.shape)
        return tf.TensorSpec([None], tf.string), tf.TensorSpec([None, axes], tf.int64)

    def unpack(self, data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """Return the tensor of one array."""
        tf = load_extra("tensorflow", "tensorflow")
        tensor = tf.reshape(tf.io.decode_raw(data, tf.as_dtype(self.dtype)), shape)
        return tensor if self.shape is None else tf.ensure_shape(tensor, self.shape)
