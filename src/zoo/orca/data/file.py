"""Small files, wherever they lie: plain paths, `file://`, `hdfs://`, `s3://` and the like."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import FORMATS
from zoo.orca.data.storage import locate

__all__ = ["exists", "load_numpy", "makedirs", "open_image", "open_text", "write_text"]


def open_text(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a text file in UTF-8, without the white space around them."""
    with locate(path).open("r", encoding="utf-8") as lines:
        return [line.strip() for line in lines]


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return an image, loaded into memory.

    Raises:
        InputError: The file is no whole image of a usual format, or one with too many pixels.
    """
    place = locate(path)
    data = place.read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    # Pillow's readers let various errors through on damaged files.
    except Exception as exc:  # noqa: BLE001 - a boundary to files from anywhere
        raise InputError(
            f"an image file ({', '.join(FORMATS)})", f"{place} ({exc})", "Check the file."
        ) from exc
    return image


def load_numpy(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file, or the arrays of a `.npz` one; never unpickles.

    An array of a `.npz` file is read when it is taken, and numpy refuses one of objects then.

    Raises:
        InputError: The file is none of these, or holds Python objects.
    """
    place = locate(path)
    data = place.read_bytes()
    try:
        loaded: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as exc:
        raise InputError(
            "a file that numpy.save wrote, without objects", f"{place} ({exc})", "Check the file."
        ) from exc
    return loaded


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file or folder."""
    return bool(locate(path).exists())


def makedirs(path: str | os.PathLike[str]) -> None:
    """Make a folder, and the folders that lead to it.

    Raises:
        FileExistsError: It is there already.
    """
    locate(path).mkdir(parents=True, exist_ok=False)


def write_text(path: str | os.PathLike[str], text: str) -> int:
    """Write a text in UTF-8, over what was there, and return its number of characters."""
    locate(path).write_bytes(text.encode("utf-8"))
    return len(text)
