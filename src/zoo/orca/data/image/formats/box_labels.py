"""Labels of object detection: a row for each object, with its box relative to the image's size."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.writing.chunk_file import BadRecord, Record
from zoo.orca.data.image.writing.verify import check_image
from zoo.orca.data.storage import locate

__all__ = ["SCHEMA", "Box", "as_label", "image_size", "labelled", "relative_box"]

SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "label": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1, 5)),
    "image_id": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}
Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax."""


def labelled(path: str, make_label: Callable[[], npt.NDArray[np.float32]]) -> Record | BadRecord:
    """Return the record of an image.

    A bad annotation spoils this record only, which the writer may skip.

    Args:
        path: The image file, which is also the record's `image_id`.
        make_label: Returns the label, or raises an `InputError`.
    """
    try:
        return {"image": path, "label": make_label(), "image_id": path}
    except InputError as exc:
        return BadRecord(path, str(exc))


def as_label(rows: Iterable[tuple[float, ...]]) -> npt.NDArray[np.float32]:
    """Return rows of xmin, ymin, xmax, ymax and class number as one array; none is 0 x 5."""
    return np.array(list(rows), np.float32).reshape(-1, 5)


def relative_box(box: Box, width: float, height: float, owner: str) -> Box:
    """Divide a box by the size of its image, and clip what lies outside.

    Args:
        box: In pixels.
        width: Of the image.
        height: Of the image.
        owner: Names the object in an error.

    Raises:
        InputError: The box or the size is no finite number, or nothing of the box is inside.
    """
    if not (all(map(math.isfinite, (*box, width, height))) and width > 0 and height > 0):
        raise InputError(
            "a box and an image size in numbers",
            f"{box} in {width} x {height} pixels ({owner})",
            "Correct the annotation.",
        )
    xmin, xmax = (min(max(x / width, 0.0), 1.0) for x in (box[0], box[2]))
    ymin, ymax = (min(max(y / height, 0.0), 1.0) for y in (box[1], box[3]))
    if not (xmin < xmax and ymin < ymax):
        raise InputError(
            f"a box with xmin < xmax and ymin < ymax inside {width:g} x {height:g} pixels",
            f"{box} ({owner})",
            "Correct the annotation.",
        )
    return xmin, ymin, xmax, ymax


def image_size(path: str) -> tuple[int, int]:
    """Return the width and height that the header of an image file tells.

    Raises:
        InputError: The file is missing or no image.
    """
    try:
        data = locate(path).read_bytes()
        reason = check_image(data)
        if reason is not None:
            raise ValueError(reason)
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, ValueError) as exc:
        raise InputError(
            "an image file that every host can read", f"{path!r} ({exc})", "Check the file."
        ) from exc
