"""MNIST's IDX files as a parquet dataset."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.spark_writer import cut, write_parts
from zoo.orca.data.image.writing.verify import Verify
from zoo.orca.data.storage import Location, locate

__all__ = ["write_mnist"]

_IMAGE_MAGIC, _LABEL_MAGIC = 2051, 2049


class _Idx(NamedTuple):
    """An IDX file of bytes: where its values start, how many items, and the shape of one."""

    file: Location
    offset: int
    items: int
    shape: tuple[int, ...]

    def read(self, block: slice) -> npt.NDArray[np.uint8]:
        """Read some of the items, and nothing else of the file."""
        size = int(np.prod(self.shape))
        items = block.stop - block.start
        with self.file.open("rb") as stream:
            stream.seek(self.offset + block.start * size)
            values = np.frombuffer(stream.read(items * size), np.uint8)
        return values.reshape(items, *self.shape)


def write_mnist(
    image_file: str,
    label_file: str,
    output_path: str,
    *,
    block_size: int = 1000,
    write_mode: str = "overwrite",
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write a pair of IDX files as a dataset: arrays `image` (height, width, 1) and `label`.

    Spark tasks read their items of the files and write the chunks, in the order of the files.

    Args:
        image_file: The images, unpacked.
        label_file: Their labels, unpacked.
        output_path: The folder that the dataset will be.
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: As for formats of image files. Two IDX files are good or bad as a whole, so there
            is nothing to skip: bad ones are an error.
        verify: As for formats of image files. Pixels lie in IDX files as they are, so header and
            length, which are always checked, are all that can be wrong.

    Raises:
        InputError: A file is missing, of another kind or too short, or the counts differ.
    """
    images = _open_idx(image_file, _IMAGE_MAGIC, axes=2)
    images = images._replace(shape=(*images.shape, 1))
    labels = _open_idx(label_file, _LABEL_MAGIC, axes=0)
    if images.items != labels.items:
        raise InputError(
            f"a label for each of the {images.items} images",
            f"{labels.items} labels in {labels.file}",
            "Give the two files of one set.",
        )
    schema = {
        "image": SchemaField(FeatureType.NDARRAY, DType.UINT8, images.shape),
        "label": SchemaField(FeatureType.NDARRAY, DType.UINT8, labels.shape),
    }
    write_parts(
        output_path,
        cut(images.items, block_size),
        partial(_records, images, labels),
        schema=schema,
        write_mode=write_mode,
        on_error=on_error,
        verify=verify,
    )


def _records(images: _Idx, labels: _Idx, block: slice) -> Iterator[dict[str, Any]]:
    for image, label in zip(images.read(block), labels.read(block), strict=True):
        yield {"image": image, "label": label}


def _open_idx(path: str, magic: int, axes: int) -> _Idx:
    """Check the header of an IDX file, and that the file is as long as the header says."""
    file = locate(path)
    if not file.is_file():
        raise InputError("an IDX file", str(file), "Check the path.")
    header_size = 4 * (2 + axes)
    with file.open("rb") as stream:
        header = stream.read(header_size)
    if header[:2] == b"\x1f\x8b":
        raise InputError("an unpacked IDX file", f"{file}, a gzip file", "Run gunzip on it.")
    words = struct.unpack(f">{len(header) // 4}I", header[: len(header) // 4 * 4])
    if len(words) != 2 + axes or words[0] != magic:
        found = words[0] if words else "an empty file"
        raise InputError(
            f"an IDX file with the magic number {magic}",
            f"{file} with {found}",
            "Check that image_file and label_file are MNIST's and in each other's place.",
        )
    items, shape = words[1], tuple(words[2:])
    expected = header_size + items * int(np.prod(shape))
    if file.stat().st_size != expected:
        raise InputError(
            f"{expected} bytes in {file}, as its header says",
            f"{file.stat().st_size}",
            "Fetch the file again.",
        )
    return _Idx(file, header_size, items, shape)
