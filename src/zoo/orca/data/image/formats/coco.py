"""COCO's object detection files as a parquet dataset."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from zoo.errors import InputError
from zoo.orca.data.image.formats.box_labels import (
    SCHEMA,
    Annotation,
    Box,
    Size,
    annotated_size,
    as_label,
    check_classes,
    image_size,
    is_flat,
    labelled,
    plain_name,
    relative_box,
)
from zoo.orca.data.image.formats.outlines import box_around
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.record_columns import Record
from zoo.orca.data.image.writing.spark_writer import cut, write_parts
from zoo.orca.data.image.writing.verify import Verify
from zoo.orca.data.storage import Location, locate

__all__ = ["write_coco"]

_log = logging.getLogger(__name__)

# What is kept of the file while it is read. The outlines of objects are nine tenths of it.
_KEPT = frozenset(
    ("annotations", "bbox", "categories", "category_id", "file_name", "height", "id", "image_id")
) | {"counts", "images", "iscrowd", "name", "size", "width"}


class _Object(NamedTuple):
    """An annotated object: its box in pixels, and its class number."""

    box: Box
    number: int


class _Image(NamedTuple):
    """An image as the file lists it, and its objects; the size is None where the file has none."""

    name: str
    size: Size | None
    objects: tuple[_Object, ...]


def write_coco(  # noqa: PLR0913 - one keyword for each choice, like the other formats
    image_dir: str,
    annotation_file: str,
    output_path: str,
    *,
    classes: Sequence[str] | None = None,
    keep_crowds: bool = True,
    block_size: int = 1000,
    write_mode: str = "overwrite",
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write images with COCO annotations as a dataset: `image`, `label`, `image_id` (path).

    A label is a float32 array with a row for each object: xmin, ymin, xmax, ymax as parts of the
    image's width and height, and the class number, which is the category's place in the order of
    category ids (COCO's own ids leave gaps). An image without objects has 0 x 5. Where an object
    has no box, that around its outline counts. Objects whose box has no width or no height, of
    which COCO has some, are left out and counted in the log; what of a box lies outside the image
    is cut off. An image of another size than the file says is a bad
    one; where the file says none, 0 or -1, the image tells its size. Images come in the order of
    the file.

    Args:
        image_dir: The folder of the images.
        annotation_file: JSON with `images`, `annotations` and `categories`. The driver reads it
            once, and only what belongs to its images travels to each task.
        output_path: The folder that the dataset will be.
        classes: The names of categories whose place in the list is the class number; objects of
            others are left out. Files of one set that do not list the same categories need it.
        keep_crowds: False leaves out boxes around crowds (`iscrowd`).
        block_size: Records in a chunk.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: What becomes of a bad image or annotation: "fail", "skip" or "quarantine".
        verify: How far images are checked: "none", where annotated sizes are believed, "header" or
            "decode".

    Raises:
        InputError: The file is not of this form or lists no image, or an image or annotation
            cannot be used.
    """
    folder = locate(image_dir)
    names = None if classes is None else check_classes(classes)
    images = _read_annotations(locate(annotation_file), names, keep_crowds)
    write_parts(
        output_path,
        [images[block] for block in cut(len(images), block_size)],
        partial(_records, folder),
        schema=SCHEMA,
        write_mode=write_mode,
        on_error=on_error,
        verify=verify,
    )


def _read_annotations(
    file: Location, classes: Sequence[str] | None, keep_crowds: bool
) -> list[_Image]:
    try:
        with file.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=_slim)
    except (LookupError, OSError, TypeError, ValueError, RecursionError) as exc:
        raise InputError("a JSON file", f"{str(file)!r} ({exc})", "Check the file.") from exc
    try:
        numbers = _number_categories(content["categories"], classes)
        objects = _group(content["annotations"], numbers, keep_crowds)
        images = [_as_image(image, objects) for image in content["images"]]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InputError(
            "COCO instances with images (id, file_name), categories (id) and annotations "
            "(image_id, category_id, bbox)",
            f"{str(file)!r} ({type(exc).__name__}: {exc})",
            "Check the file; captions and keypoints files have other forms.",
        ) from exc
    lost = objects.keys() - {image["id"] for image in content["images"]}
    if lost:
        raise InputError(
            "annotations of the images in the file",
            f"{str(file)!r} with {len(lost)} other image_ids, such as {min(map(repr, lost))}",
            "Give the annotations of these images.",
        )
    return images


def _slim(value: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value[name] for name in value.keys() & _KEPT}
    if kept.get("bbox") is None and value.get("segmentation"):
        kept["bbox"] = box_around(value["segmentation"])
    return kept


def _number_categories(
    categories: Sequence[Mapping[str, Any]], classes: Sequence[str] | None
) -> dict[Hashable, int | None]:
    """The class number of each category id; None for those that are left out."""
    if classes is None:
        ids = sorted(category["id"] for category in categories)
        numbers: dict[Hashable, int | None] = {one: number for number, one in enumerate(ids)}
    else:
        places = {plain_name(name): number for number, name in enumerate(classes)}
        numbers = {one["id"]: places.get(plain_name(one["name"])) for one in categories}
        if set(numbers.values()) <= {None}:
            raise ValueError(f"no category of the classes {list(classes)}")
    _log.info("class numbers by category id: %s", numbers)
    return numbers


def _group(
    annotations: Sequence[Mapping[str, Any]],
    numbers: Mapping[Hashable, int | None],
    keep_crowds: bool,
) -> dict[Hashable, list[_Object]]:
    """The objects of each image."""
    objects = defaultdict(list)
    flat = 0
    for annotation in annotations:
        x, y, width, height = map(float, annotation["bbox"])
        box = (x, y, x + width, y + height)
        if is_flat(box):
            flat += 1
        elif keep_crowds or not annotation.get("iscrowd"):
            number = numbers[annotation["category_id"]]
            if number is not None:
                objects[annotation["image_id"]].append(_Object(box, number))
    if flat:
        _log.warning("left out %d objects whose box has no width or no height", flat)
    return objects


def _as_image(image: Mapping[str, Any], objects: Mapping[Hashable, list[_Object]]) -> _Image:
    name = image["file_name"]
    # A file from elsewhere must not reach beyond the folder of the images.
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no name inside the folder of the images")
    found = objects.get(image["id"], ())
    return _Image(name, annotated_size(image.get("width"), image.get("height")), tuple(found))


def _records(folder: Location, images: Sequence[_Image]) -> Iterator[Record | BadRecord]:
    for image in images:
        path = str(folder / image.name)
        yield labelled(path, partial(_annotation, image, path))


def _annotation(image: _Image, path: str) -> Annotation:
    width, height = image.size or image_size(path)
    label = as_label(
        (*relative_box(box, width, height, path), number) for box, number in image.objects
    )
    return Annotation(label, image.size)
