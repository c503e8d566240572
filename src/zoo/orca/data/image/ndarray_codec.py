"""Arrays as bytes: a compressed NumPy archive that holds one array under the key `arr`."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

__all__ = ["decode_ndarray", "encode_ndarray"]

# What NumPy lets through on bytes that are no archive, or a damaged one.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    OSError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def encode_ndarray(value: npt.ArrayLike) -> bytes:
    """Return an array, or a plain number, as the bytes of a compressed archive.

    Raises:
        InputError: The value is no array of numbers or texts.
    """
    array = np.asarray(value)
    if array.dtype.hasobject:
        # NumPy would pickle these, and reading a pickle from a file can run code.
        raise InputError(
            "an array of numbers or texts", f"{type(value).__name__} of Python objects", "Cast it."
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, arr=array)
    return buffer.getvalue()


def decode_ndarray(data: bytes) -> npt.NDArray[Any]:
    """Return the array that an NDARRAY column of a dataset holds as bytes.

    Works as a decoder of an estimator and inside Spark functions, where such a column is binary.

    Raises:
        InputError: The bytes are no such archive.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive["arr"]
            return array
    except _DAMAGE as exc:
        raise InputError(
            "the bytes of a NumPy archive with the key 'arr'",
            f"{type(data).__name__} that NumPy cannot read ({exc})",
            "Name a column whose feature type is NDARRAY.",
        ) from exc
