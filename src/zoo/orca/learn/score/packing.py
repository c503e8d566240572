"""Arrays as text, for messages in JSON: to the last bit, not-a-number included."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np

__all__ = ["packed", "unpacked"]


def packed(array: np.ndarray) -> str:
    """An array as text."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(file.getvalue(), 1)).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The array of a text."""
    file = io.BytesIO(zlib.decompress(base64.b64decode(text)))
    array: np.ndarray = np.load(file, allow_pickle=False)
    return array
