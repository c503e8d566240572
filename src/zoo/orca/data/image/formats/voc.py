"""Pascal VOC folders as a parquet dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree

import numpy as np

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.formats.box_labels import (
    SCHEMA,
    Annotation,
    Box,
    annotated_size,
    as_label,
    check_classes,
    image_size,
    is_flat,
    labelled,
    plain_name,
    relative_box,
)
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.record_columns import Record
from zoo.orca.data.image.writing.spark_writer import cut, write_parts
from zoo.orca.data.image.writing.verify import Verify
from zoo.orca.data.storage import Location, locate

__all__ = ["VOC_CLASSES", "VocLabels", "write_voc"]

_log = logging.getLogger(__name__)

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes of Pascal VOC; a class number is a place in this list."""

_MARKS = {"difficult": SchemaField(FeatureType.NDARRAY, DType.UINT8, (-1,))}
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MAX_ANNOTATION_BYTES = 16 * 2**20
_Entry = tuple[int, str]
"""The year of a folder and the name of an image in it, without suffix."""


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses document types: entities that name entities blow up in memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Stop at the declaration, before anything in it is expanded."""
        raise ValueError("a document type, which VOC does not have")


def write_voc(  # noqa: PLR0913 - existing programs call it so
    voc_root_path: str,
    splits_names: Sequence[tuple[int, str]],
    output_path: str,
    classes: Sequence[str] | None = None,
    *,
    keep_difficult: bool = True,
    mark_difficult: bool = False,
    strict_boxes: bool = False,
    block_size: int = 1000,
    write_mode: str = "overwrite",
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write annotated VOC images as a dataset: `image`, `label`, `image_id` (path).

    A label is a float32 array with a row for each object: xmin, ymin, xmax, ymax as parts of the
    image's width and height, and the class number. An image without objects has 0 x 5. Objects
    that are marked truncated are kept, and those marked difficult unless asked otherwise. Objects
    whose box has no width or no height are left out and counted in the log; what of a box lies
    outside the image is cut off. An image of another size than its annotation says is a bad one;
    where that says none, the image tells its size. The driver reads the lists of the splits; Spark
    tasks read annotations and images.

    Args:
        voc_root_path: The folder of the folders VOC2007, VOC2012, ...
        splits_names: Year and name of the lists to take, such as `[(2007, "trainval")]`. Of the
            list of one class (`dog_train`) the images marked -1, without that class, are left out.
        output_path: The folder that the dataset will be.
        classes: The names whose place in the list is the class number; objects of other classes
            are left out. None means the 20 of VOC, and an object of another class is an error.
        keep_difficult: False leaves out the objects that are marked difficult.
        mark_difficult: Add the column `difficult`, an array with 1 for each object that is marked,
            else 0: VOC's measure of detectors needs it.
        strict_boxes: An image is a bad one when a box has no width or no height or reaches
            outside; nothing is left out or cut off.
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: What becomes of a bad image or annotation: "fail", "skip" or "quarantine".
        verify: How far images are checked: "none", where annotated sizes are believed, "header" or
            "decode".

    Raises:
        InputError: A list is missing or empty, or an annotation or image cannot be used.
    """
    root = locate(voc_root_path)
    entries = [entry for year, split in _pairs(splits_names) for entry in _read(root, year, split)]
    if not entries:
        raise InputError("splits with images", f"empty lists {splits_names!r}", "Check the lists.")
    labels = VocLabels(
        None if classes is None else check_classes(classes),
        keep_difficult,
        mark_difficult,
        strict_boxes,
    )
    write_parts(
        output_path,
        [entries[block] for block in cut(len(entries), block_size)],
        partial(_records, root, labels),
        schema={**SCHEMA, **_MARKS} if mark_difficult else SCHEMA,
        write_mode=write_mode,
        on_error=on_error,
        verify=verify,
    )


def _pairs(splits_names: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    try:
        return [(year, name) for year, name in splits_names]
    except (TypeError, ValueError) as exc:
        raise InputError(
            "splits_names as pairs, such as [(2007, 'trainval')]", repr(splits_names), "Correct it."
        ) from exc


def _read(root: Location, year: int, split: str) -> list[_Entry]:
    """The images of a split, in the order of its list."""
    file = _folder(root, year) / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"the list of split {split!r} of {year}", f"{str(file)!r} ({exc})", "Check the split."
        ) from exc
    words = [line.split() for line in lines]
    return [(year, line[0]) for line in words if line and line[1:2] != ["-1"]]


def _folder(root: Location, year: int) -> Location:
    return root / f"VOC{year}"


def _records(
    root: Location, labels: VocLabels, entries: Sequence[_Entry]
) -> Iterator[Record | BadRecord]:
    for year, name in entries:
        folder = _folder(root, year)
        image = str(folder / "JPEGImages" / f"{name}.jpg")
        yield labelled(image, partial(labels.read, folder / "Annotations" / f"{name}.xml", image))


@dataclass(frozen=True)
class VocLabels:
    """Makes labels of VOC annotations.

    Args:
        classes: The names that are numbered and kept; None means the 20 of VOC, and no others.
        keep_difficult: Whether objects that are marked difficult are kept.
        mark_difficult: Whether it is told of each object if it is marked.
        strict_boxes: Whether boxes must have an area and lie inside.
    """

    classes: tuple[str, ...] | None = None
    keep_difficult: bool = True
    mark_difficult: bool = False
    strict_boxes: bool = False

    def read(self, file: Location, image: str) -> Annotation:
        """Return what is annotated of an image.

        Args:
            file: The annotation.
            image: The image file, which tells its size where the annotation does not.

        Raises:
            InputError: The annotation cannot be used.
        """
        root = _parse(file)
        size = annotated_size(root.findtext("size/width"), root.findtext("size/height"))
        width, height = size or image_size(image)
        numbers = self._numbers()
        wanted = [one for one in root.iter("object") if self._is_wanted(one, numbers, file)]
        objects = [(_box(found, file), found) for found in wanted]
        solid = [one for one in objects if self.strict_boxes or not is_flat(one[0])]
        if flat := len(objects) - len(solid):
            _log.warning("left out %d objects of %s: no width or no height", flat, file)
        where, strict = (width, height, str(file)), self.strict_boxes
        rows = (
            (*relative_box(box, *where, strict=strict), numbers[_class_name(found)])
            for box, found in solid
        )
        marks = np.array([_is_difficult(found) for _, found in solid], np.uint8)
        return Annotation(as_label(rows), size, {"difficult": marks} if self.mark_difficult else {})

    def _numbers(self) -> dict[str, int]:
        names = VOC_CLASSES if self.classes is None else self.classes
        return {plain_name(name): number for number, name in enumerate(names)}

    def _is_wanted(
        self, found: ElementTree.Element, numbers: Mapping[str, int], file: Location
    ) -> bool:
        name = _class_name(found)
        if name in numbers:
            return self.keep_difficult or not _is_difficult(found)
        if self.classes is None:
            raise InputError(
                f"objects of the classes {list(numbers)}",
                f"{name!r} in {str(file)!r}",
                "Pass classes=[...] with the names to keep.",
            )
        return False


def _class_name(found: ElementTree.Element) -> str:
    return plain_name(found.findtext("name") or "")


def _is_difficult(found: ElementTree.Element) -> bool:
    return (found.findtext("difficult") or "0").strip() == "1"


def _parse(file: Location) -> ElementTree.Element:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_ANNOTATION_BYTES + 1)
        if len(data) > _MAX_ANNOTATION_BYTES:
            raise ValueError(f"more than {_MAX_ANNOTATION_BYTES} bytes")
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_PlainTree()))
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as exc:
        raise InputError(
            "a VOC annotation in XML", f"{str(file)!r} ({exc})", "Correct or remove the image."
        ) from exc


def _box(found: ElementTree.Element, file: Location) -> Box:
    try:
        xmin, ymin, xmax, ymax = (float(found.findtext(f"bndbox/{side}") or "") for side in _SIDES)
    except ValueError as exc:
        raise InputError(
            f"numbers {_SIDES} in bndbox", f"{str(file)!r} ({exc})", "Correct the annotation."
        ) from exc
    return xmin, ymin, xmax, ymax
