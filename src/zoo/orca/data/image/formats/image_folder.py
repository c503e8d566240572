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
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.spark_writer import cut, write_parts
from zoo.orca.data.image.writing.verify import Verify
from zoo.orca.data.storage import Location, locate

__all__ = ["write_from_directory"]

_log = logging.getLogger(__name__)

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


def write_from_directory(  # noqa: PLR0913 - existing programs call it
    directory: str,
    label_map: Mapping[str, int] | None,
    output_path: str,
    shuffle: bool = True,
    *,
    seed: int = 0,
    block_size: int = 1000,
    write_mode: str = "overwrite",
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write a folder of classes as a dataset: `image`, `label`, `image_id` (path), `label_str`.

    The driver lists the files in a fixed order and Spark tasks write the chunks, so the same
    folder and seed give the same dataset. Files without the suffix of an image, and hidden ones,
    are skipped and counted in the log. A write that was cut off goes on when it is called again.

    Args:
        directory: Its sub-folders are the classes, their files the images. On any file system.
        label_map: The number of each class; other sub-folders are left out. None numbers all
            sub-folders in the order of their names.
        output_path: The folder that the dataset will be. On any file system.
        shuffle: Mix the classes; False keeps the order of class and file names.
        seed: Decides the order of a shuffle.
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: What becomes of files that cannot be read or are no images: "fail" ends the
            write, "skip" leaves them out and counts them, "quarantine" also lists them with the
            reason, see `read_quarantine`.
        verify: "header" looks at the first bytes of each file, "decode" decodes it, "none" takes
            all that is not empty.

    Raises:
        InputError: The folder is missing or holds no image, or a file cannot be used.
    """
    root = locate(directory)
    if not root.is_dir():
        raise InputError("a folder of class folders", str(root), "Check the path.")
    labels = dict(label_map) if label_map is not None else _numbered_classes(root)
    entries = _list_images(root, sorted(labels))
    if shuffle:
        random.Random(seed).shuffle(entries)
    write_parts(
        output_path,
        [entries[block] for block in cut(len(entries), block_size)],
        partial(_records, str(root), labels),
        schema=_SCHEMA,
        write_mode=write_mode,
        on_error=on_error,
        verify=verify,
    )


def _numbered_classes(root: Location) -> dict[str, int]:
    names = sorted(name for name, is_folder in _listed(root) if is_folder)
    labels = {name: n for n, name in enumerate(n for n in names if not n.startswith("."))}
    _log.info("class numbers by folder name: %s", labels)
    if labels and all(map(str.isdecimal, labels)):
        others = {name: number for name, number in labels.items() if int(name) != number}
        if others:
            shown = ", ".join(f"{name!r} is {number}" for name, number in list(others.items())[:5])
            _log.warning(
                "class folders of %s are numbers, and are counted in the order of names: %s. Pass "
                "label_map={name: int(name), ...} to keep the numbers",
                root,
                shown,
            )
    return labels


def _listed(folder: Location) -> list[tuple[str, bool]]:
    """Return each entry's name, and whether it is a folder, with one request a folder."""
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir()) for entry in entries]
    found = folder.fs.ls(folder.path, detail=True)
    return [(f["name"].rstrip("/").rsplit("/", 1)[-1], f["type"] == "directory") for f in found]


def _list_images(root: Location, classes: Sequence[str]) -> list[_Entry]:
    entries: list[_Entry] = []
    skipped = 0
    for name in classes:
        if not (root / name).is_dir():
            _log.warning("class %r has no folder in %s", name, root)
            continue
        files = sorted(file for file, _ in _listed(root / name))
        images = [file for file in files if _is_image(file)]
        skipped += len(files) - len(images)
        entries += [(name, image) for image in images]
    if skipped:
        _log.warning("skipped %d entries of %s that are no image files", skipped, root)
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
    root: str, labels: Mapping[str, int], entries: Sequence[_Entry]
) -> Iterator[dict[str, Any] | BadRecord]:
    for class_name, file in entries:
        path = f"{root}/{class_name}/{file}"
        if not _is_text(path):
            yield BadRecord(path, "a name that is no text, which image_id cannot hold")
            continue
        yield {
            "image": path,
            "label": labels[class_name],
            "image_id": path,
            "label_str": class_name,
        }


def _is_text(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False
