"""ImageNet's folders as a parquet dataset."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.chunk_file import Record
from zoo.orca.data.image.writing.spark_writer import cut, write_parts
from zoo.orca.data.image.writing.verify import Verify
from zoo.orca.data.storage import Location, locate

__all__ = ["LABELS_FILE", "SPLITS", "Entry", "list_split", "number_synsets", "write_imagenet"]

_log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
"""The folders of the two splits."""
LABELS_FILE = "synset_labels.txt"
"""The synset of each validation image, a line each in the order of the images' names.

Where images are missing, numbers in names such as `ILSVRC2012_val_00002155.JPEG` find the lines.
"""

_NUMBERED = re.compile(r"_val_([0-9]{8})\.")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "label": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "image_id": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
    "label_str": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}


class Entry(NamedTuple):
    """An image: its path below the folder of ImageNet, and its synset."""

    name: str
    synset: str


def write_imagenet(  # noqa: PLR0913 - one keyword for each choice, like the other formats
    imagenet_path: str,
    output_path: str,
    *,
    split: str = "train",
    label_map: Mapping[str, int] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    block_size: int = 1000,
    write_mode: str = "overwrite",
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write a split of ImageNet as a dataset: `image`, `label`, `image_id`, `label_str` (synset).

    The folder holds `train/<synset>/*.JPEG`, `validation/*.JPEG` and `synset_labels.txt`. Labels
    are the synsets' places in their sorted order, from 0, the same in both splits.

    Args:
        imagenet_path: The folder.
        output_path: The folder that the dataset will be.
        split: "train" or "validation".
        label_map: The number of each synset, if another is wanted; all must be in it.
        shuffle: Mix the classes; False keeps the order of names.
        seed: Decides the order of a shuffle.
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: What becomes of a bad image: "fail", "skip" or "quarantine".
        verify: How far images are checked: "none", "header" or "decode".

    Raises:
        InputError: The folder is not of this form, or an image cannot be used.
    """
    root = locate(imagenet_path)
    entries = list_split(root, split)
    labels = number_synsets(root) if label_map is None else dict(label_map)
    unknown = {entry.synset for entry in entries} - labels.keys()
    if unknown:
        raise InputError("a label for each synset", f"none for {sorted(unknown)}", "Add them.")
    if shuffle:
        random.Random(seed).shuffle(entries)
    write_parts(
        output_path,
        [entries[block] for block in cut(len(entries), block_size)],
        partial(_records, root, labels),
        schema=_SCHEMA,
        write_mode=write_mode,
        on_error=on_error,
        verify=verify,
    )


def list_split(root: Location, split: str) -> list[Entry]:
    """List the images of a split in the order of their names.

    Raises:
        InputError: The split is unknown or has no images, or labels and images differ in number.
    """
    if split not in SPLITS:
        raise InputError(f"a split of {SPLITS}", repr(split), "Choose one of them.")
    folder = root / split
    if split == "train":
        synsets = _synset_folders(folder)
        entries = [
            Entry(f"{split}/{synset}/{name}", synset)
            for synset in synsets
            for name in _images(folder / synset)
        ]
    else:
        entries = _label_validation(root, _images(folder))
    if not entries:
        raise InputError(
            f"images ({' '.join(_SUFFIXES)}) in {_FORMS[split]}", str(folder), "Check the path."
        )
    return entries


def number_synsets(root: Location) -> dict[str, int]:
    """Number the synsets of both splits in their sorted order, from 0."""
    train = _synset_folders(root / "train") if (root / "train").is_dir() else []
    labelled = _read_labels(root) if (root / LABELS_FILE).is_file() else []
    return {synset: number for number, synset in enumerate(sorted({*train, *labelled}))}


_FORMS = {"train": "train/<synset>/", "validation": "validation/"}


def _synset_folders(folder: Location) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and _shown(entry.name))


def _images(folder: Location) -> list[str]:
    names = sorted(entry.name for entry in _entries(folder))
    images = [name for name in names if _shown(name) and name.lower().endswith(_SUFFIXES)]
    if len(images) < len(names):
        _log.warning("skipped %d entries of %s", len(names) - len(images), folder)
    return images


def _shown(name: str) -> bool:
    return not name.startswith(".")


def _entries(folder: Location) -> list[Location]:
    try:
        return list(folder.iterdir())
    except OSError as exc:
        raise InputError(
            "ImageNet's folders train/<synset>/ and validation/", f"{folder} ({exc})", "Check it."
        ) from exc


def _label_validation(root: Location, names: Sequence[str]) -> list[Entry]:
    synsets = _read_labels(root)
    numbers = [int(found.group(1)) for name in names if (found := _NUMBERED.search(name))]
    if len(set(numbers)) == len(names) and all(0 < n <= len(synsets) for n in numbers):
        # A part of the images with the labels of all: the number in a name is that of its line.
        synsets = [synsets[number - 1] for number in numbers]
    if len(synsets) != len(names):
        raise InputError(
            f"a line for each of the {len(names)} validation images",
            f"{len(synsets)} lines in {root / LABELS_FILE}",
            "Give all images and the labels that belong to them.",
        )
    pairs = zip(names, synsets, strict=True)
    return [Entry(f"validation/{name}", synset) for name, synset in pairs]


def _read_labels(root: Location) -> list[str]:
    file = root / LABELS_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"the labels of the validation images in {LABELS_FILE}",
            f"{str(file)!r} ({exc})",
            "Name imagenet_2012_validation_synset_labels.txt so and put it there.",
        ) from exc
    return [line.strip() for line in lines if line.strip()]


def _records(
    root: Location, labels: Mapping[str, int], entries: Sequence[Entry]
) -> Iterator[Record]:
    for name, synset in entries:
        path = os.path.join(str(root), name)
        yield {"image": path, "label": labels[synset], "image_id": path, "label_str": synset}
