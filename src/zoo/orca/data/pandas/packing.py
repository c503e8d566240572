"""How a file is packed, by its name: pandas infers this from a path, and gets an open file."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from zoo.errors import InputError

__all__ = ["packing"]

_PACKED = {
    ".bz2": "bz2",
    ".gz": "gzip",
    ".tar": "tar",
    ".xz": "xz",
    ".zip": "zip",
    ".zst": "zstd",
}
# Endings of what Hadoop unpacks, and pandas does not.
_OTHER_PACKED = (".deflate", ".lz4", ".snappy", ".zstd")


def packing(file: str, compression: object = "infer") -> Any:
    """How a file is packed, as pandas names it; None if it is not.

    Args:
        file: Its name.
        compression: What the caller says; "infer" to go by the name.

    Raises:
        InputError: In a way that pandas does not know.
    """
    if compression != "infer":
        return compression
    name = PurePosixPath(file.lower())
    if name.suffix in _OTHER_PACKED:
        raise InputError(
            f"a file packed as {', '.join(_PACKED)}", file, "Pack it in another way, or unpack it."
        )
    return "tar" if PurePosixPath(name.stem).suffix == ".tar" else _PACKED.get(name.suffix)
