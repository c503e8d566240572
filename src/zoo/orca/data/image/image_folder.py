"""A folder with a sub-folder of image files for each class, as a parquet dataset."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.orca.data.image.schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.spark_writer import cut, write_parts
from zoo.orca.data.storage import local_path

__all__ = ["write_from_directory"]

logger = logging.getLogger(__name__)

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "label": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "image_id": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
    "label_str": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}
_Entry = tuple[str, str]
"""The name of a class and of a file in its sub-folder."""


def write_from_directory(
    directory: str,
    label_map: Mapping[str, int] | None,
    output_path: str,
    shuffle: bool = True,
    *,
    seed: int = 0,
    block_size: int = 1000,
    write_mode: str = "overwrite",
) -> None:
    """Write a folder of classes as a dataset: `image`, `label`, `image_id` (path), `label_str`.

    The driver lists the files in a fixed order and Spark tasks write the chunks, so the same
    folder and seed give the same dataset. Files without the suffix of an image, and hidden ones,
    are skipped and counted in the log.

    Args:
        directory: Its sub-folders are the classes, their files the images.
        label_map: The number of each class; other sub-folders are left out. None numbers all
            sub-folders in the order of their names.
        output_path: The folder that the dataset will be.
        shuffle: Mix the classes; False keeps the order of class and file names.
        seed: Decides the order of a shuffle.
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".

    Raises:
        InputError: The folder is missing or holds no image, or a file cannot be read.
    """
    root = local_path(directory)
    if not root.is_dir():
        raise InputError("a folder of class folders", str(root), "Check the path.")
    labels = dict(label_map) if label_map is not None else _numbered_classes(root)
    entries = _list_images(root, sorted(labels))
    if shuffle:
        random.Random(seed).shuffle(entries)
    write_parts(
        output_path,
        [entries[block] for block in cut(len(entries), block_size)],
        partial(_records, root, labels),
        schema=_SCHEMA,
        write_mode=write_mode,
    )


def _numbered_classes(root: Path) -> dict[str, int]:
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    labels = {name: n for n, name in enumerate(n for n in names if not n.startswith("."))}
    logger.info("class numbers by folder name: %s", labels)
    return labels


def _list_images(root: Path, classes: Sequence[str]) -> list[_Entry]:
    entries: list[_Entry] = []
    skipped = 0
    for name in classes:
        if not (root / name).is_dir():
            logger.warning("class %r has no folder in %s", name, root)
            continue
        files = sorted(entry.name for entry in os.scandir(root / name))
        images = [file for file in files if _is_image(file)]
        skipped += len(files) - len(images)
        entries += [(name, image) for image in images]
    if skipped:
        logger.warning("skipped %d entries of %s that are no image files", skipped, root)
    if not entries:
        raise InputError(
            f"class folders with images ({' '.join(sorted(_SUFFIXES))})",
            f"{root} with {len(classes)} classes, {skipped} other files and no image",
            "Check the directory and the label_map.",
        )
    return entries


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def _records(
    root: Path, labels: Mapping[str, int], entries: Sequence[_Entry]
) -> Iterator[dict[str, Any]]:
    for class_name, file in entries:
        path = os.path.join(root, class_name, file)
        yield {
            "image": path,
            "label": labels[class_name],
            "image_id": path,
            "label_str": class_name,
        }
