import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.image import decode_ndarray, read_parquet, write_parquet
from zoo.orca.data.image.formats.box_labels import SCHEMA
from zoo.orca.data.image.formats.coco import _read_annotations, _records, write_coco
from zoo.orca.data.image.writing.chunk_file import write_chunk
from zoo.orca.data.image.writing.verify import Screening

Picture = Callable[..., bytes]


def instances() -> dict[str, Any]:
    """Three images of 10 x 20 pixels; category ids with a gap, in disorder."""
    sizes = {"width": 20, "height": 10}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "b [1].jpg", **sizes},
            {"id": 3, "file_name": "sub/a.jpg", **sizes},
            {"id": 5, "file_name": "ü.png"},
        ],
        "annotations": [
            annotation(3, 90, [2, 1, 8, 4]),
            annotation(7, 1, [0, 0, 30, 5]),
            annotation(3, 1, [10, 5, 5, 5], iscrowd=1),
            annotation(5, 44, [5, 5, 5, 5]),
            annotation(5, 44, [5, 5, 0, 5]),
        ],
        "categories": [{"id": n, "name": str(n), "supercategory": "x"} for n in (90, 1, 44)],
    }


def annotation(image: int, category: int, bbox: list[float], iscrowd: int = 0) -> dict[str, Any]:
    outline = {"counts": [1, 2], "size": [10, 20]} if iscrowd else [[1.0, 2.0, 3.0]]
    return {
        "id": hash((image, category, *bbox)),
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "iscrowd": iscrowd,
        "segmentation": outline,
        "area": 1.5,
    }


@pytest.fixture
def coco(tmp_path: Path, make_picture: Picture) -> Path:
    root = tmp_path / "coco"
    (root / "images" / "sub").mkdir(parents=True)
    for image in instances()["images"]:
        kind = "PNG" if image["file_name"].endswith("png") else "JPEG"
        data = make_picture(10, 20, seed=image["id"], kind=kind)
        (root / "images" / image["file_name"]).write_bytes(data)
    put(root, instances())
    return root


def put(root: Path, content: Any) -> None:
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def write(root: Path, **options: Any) -> dict[str, tuple[bytes, np.ndarray]]:
    out = str(root / "out")
    write_coco(str(root / "images"), str(root / "instances.json"), out, **options)
    rows = read_parquet("spark", out).collect()
    return {
        os.path.relpath(row.image_id, root / "images"): (
            bytes(row.image),
            decode_ndarray(row.label),
        )
        for row in rows
    }


@pytest.mark.spark
def test_images_come_with_boxes_and_classes(spark: SparkSession, coco: Path) -> None:
    rows = write(coco, block_size=2)
    assert list(rows) == ["b [1].jpg", "sub/a.jpg", "ü.png"]
    assert all(data == (coco / "images" / name).read_bytes() for name, (data, _) in rows.items())
    assert all(label.dtype == np.float32 for _, label in rows.values())
    np.testing.assert_allclose(rows["b [1].jpg"][1], [[0, 0, 1, 0.5, 0]])
    np.testing.assert_allclose(
        rows["sub/a.jpg"][1], [[0.1, 0.1, 0.5, 0.5, 2], [0.5, 0.5, 0.75, 1, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(rows["ü.png"][1], [[0.25, 0.5, 0.5, 1, 1]])


@pytest.mark.spark
def test_write_parquet_knows_coco(spark: SparkSession, coco: Path) -> None:
    given = {"image_dir": str(coco / "images"), "annotation_file": str(coco / "instances.json")}
    write_parquet("coco", str(coco / "out"), **given)
    assert read_parquet("spark", str(coco / "out")).columns == ["image", "label", "image_id"]


@pytest.mark.spark
def test_crowds_can_be_left_out_and_images_without_objects_stay(
    spark: SparkSession, coco: Path
) -> None:
    content = instances()
    content["annotations"] = content["annotations"][2:3]
    put(coco, content)
    labels = {name: label for name, (_, label) in write(coco, keep_crowds=False).items()}
    assert {name: label.shape for name, label in labels.items()} == dict.fromkeys(labels, (0, 5))
    assert len(labels) == 3


@pytest.mark.spark
def test_flat_boxes_are_counted(
    spark: SparkSession, coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(coco)
    assert "left out 1 objects" in caplog.text


@pytest.mark.spark
def test_bad_boxes_are_named_or_skipped(spark: SparkSession, coco: Path) -> None:
    content = instances()
    content["annotations"].append(annotation(3, 1, [5, 5, -2, 2]))
    put(coco, content)
    with pytest.raises(InputError, match=r"sub/a\.jpg"):
        write(coco)
    assert list(write(coco, on_error="skip")) == ["b [1].jpg", "ü.png"]


def records_of(root: Path, classes: list[str] | None = None) -> dict[str, Any]:
    """The records that tasks make, by the name of the image."""
    images = _read_annotations(root / "instances.json", classes, keep_crowds=True)
    names = [image.name for image in images]
    return dict(zip(names, _records(root / "images", images), strict=True))


def test_box_around_the_outline_where_there_is_no_box(coco: Path) -> None:
    content = instances()
    outlines = [[[2, 1, 10, 5], [3, 2, 4, 3]], {"counts": [200], "size": [10, 20]}, None]
    for one, outline in zip(content["annotations"], outlines, strict=False):
        del one["bbox"], one["iscrowd"]
        one["segmentation"] = outline
    content["annotations"][2]["bbox"] = [10, 5, 5, 5]
    put(coco, content)
    found = records_of(coco)
    expected = [[0.1, 0.1, 0.5, 0.5, 2], [0.5, 0.5, 0.75, 1, 0]]
    np.testing.assert_allclose(found["sub/a.jpg"]["label"], expected, rtol=1e-6)
    assert found["b [1].jpg"]["label"].shape == (0, 5)  # nothing in its outline


def test_classes_number_categories_by_name(coco: Path) -> None:
    found = records_of(coco, classes=["44", " 90 "])
    assert found["sub/a.jpg"]["label"][:, 4].tolist() == [1]
    assert found["ü.png"]["label"][:, 4].tolist() == [0]
    with pytest.raises(InputError, match="no category of the classes"):
        records_of(coco, classes=["cat"])
    with pytest.raises(InputError, match="classes as a list of names, each once"):
        write(coco, classes=["44", "44"])


@pytest.mark.parametrize("size", [0, -1, "?", None])
def test_size_that_says_nothing_is_the_images(coco: Path, size: Any) -> None:
    content = instances()
    content["images"][1].update(width=size, height=size)
    put(coco, content)
    found = records_of(coco)["sub/a.jpg"]["label"]
    np.testing.assert_allclose(found[0], [0.1, 0.1, 0.5, 0.5, 2], rtol=1e-6)


def test_image_of_another_size_than_annotated(coco: Path, tmp_path: Path) -> None:
    content = instances()
    content["images"][1].update(width=40, height=10)
    put(coco, content)
    records = list(records_of(coco).values())
    with pytest.raises(InputError, match=r"20 x 10 pixels; received one for 40 x 10 .*sub/a\.jpg"):
        write_chunk(tmp_path / "chunk=0", SCHEMA, records)
    assert write_chunk(tmp_path / "chunk=0", SCHEMA, records, Screening("quarantine")).bad == 1


@pytest.mark.spark
def test_missing_image_is_named(spark: SparkSession, coco: Path) -> None:
    (coco / "images" / "sub" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"sub/a\.jpg"):
        write(coco)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", [], "at least one record"),
        ("images", [{"id": 3}], "file_name"),
        ("images", [{"id": 3, "file_name": "../../secret"}], "inside the folder"),
        ("images", [{"id": 3, "file_name": "a.jpg"}], "2 other image_ids"),
        ("categories", [{"id": 1}, {"id": 44}], "KeyError: 90"),
        ("annotations", [{"image_id": 3, "category_id": 1, "bbox": [1, 2]}], "values to unpack"),
        ("annotations", [{"image_id": 3, "caption": "a cat"}], "captions"),
        ("annotations", None, "COCO instances"),
    ],
)
def test_files_of_another_form(coco: Path, part: str, value: Any, message: str) -> None:
    content = instances()
    content[part] = value
    if message == "at least one record":
        content["annotations"] = []
    put(coco, content)
    with pytest.raises(InputError, match=message):
        write(coco)
    assert not (coco / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "3"])
def test_files_that_are_no_annotations(coco: Path, text: str) -> None:
    (coco / "instances.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"instances\.json"):
        write(coco)


def test_missing_file(coco: Path) -> None:
    (coco / "instances.json").unlink()
    with pytest.raises(InputError, match=r"instances\.json"):
        write(coco)
