import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.image import (
    decode_ndarray,
    read_parquet,
    write_parquet,
    write_voc,
)
from zoo.orca.data.image.formats.box_labels import SCHEMA
from zoo.orca.data.image.formats.voc import VOC_CLASSES, VocLabels, _records
from zoo.orca.data.image.writing.chunk_file import write_chunk
from zoo.orca.data.image.writing.verify import Screening, check_image

REAL = Path(__file__).parents[6] / "shared" / "data" / "voc" / "VOCdevkit"

ALL = VocLabels()

Rows = dict[str, tuple[bytes, np.ndarray]]


def thing(name: str, box: tuple[Any, ...], difficult: int | None = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    numbers = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{mark}<bndbox>{numbers}</bndbox></object>"


SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"
ANNOTATIONS = {
    "one": SIZE + thing("dog", (2, 1, 10, 5)) + thing(" Person", ("3.5", 2, 40, 10), None),
    "two": SIZE + thing("cat", (0, 0, 20, 10), 1),
    "three": SIZE,
    "four": thing("dog", (5, 5, 10, 10)),
}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Four images of 10 x 20 pixels, one without objects, one without a size."""
    root = tmp_path / "VOC devkit [1]"
    folder = root / "VOC2007"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for name, body in ANNOTATIONS.items():
        annotate(root, name, body)
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (len(name), 0, 0)).save(buffer, "JPEG")
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(buffer.getvalue())
    split(root, "trainval", "one\ntwo\n\nthree\nfour\n")
    return root


def annotate(root: Path, name: str, body: str) -> None:
    text = f"<annotation>{body}</annotation>"
    (root / "VOC2007" / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")


def split(root: Path, name: str, text: str) -> None:
    (root / "VOC2007" / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")


def stored(path: Path) -> Rows:
    """Image bytes and label of each image of a dataset, by the image's name."""
    rows = read_parquet("spark", str(path)).collect()
    return {Path(row.image_id).stem: (bytes(row.image), decode_ndarray(row.label)) for row in rows}


def label_of(voc: Path, name: str, labels: VocLabels = ALL) -> np.ndarray:
    folder = voc / "VOC2007"
    file = folder / "Annotations" / f"{name}.xml"
    return labels.read(file, str(folder / "JPEGImages" / f"{name}.jpg")).label


@pytest.mark.spark
def test_columns_and_bytes(spark: SparkSession, voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_parquet(
        "voc", str(out), voc_root_path=str(voc), splits_names=[(2007, "trainval")], block_size=3
    )
    assert read_parquet("spark", str(out)).columns == ["image", "label", "image_id"]
    assert len(list(out.glob("chunk=*"))) == 2
    rows = stored(out)
    assert list(rows) == list(ANNOTATIONS)
    for name, (data, label) in rows.items():
        assert data == (voc / "VOC2007" / "JPEGImages" / f"{name}.jpg").read_bytes()
        assert label.dtype == np.float32
        assert label.shape[1] == 5


def test_labels_are_relative_corners_and_class(voc: Path) -> None:
    dog, person = VOC_CLASSES.index("dog"), VOC_CLASSES.index("person")
    expected = [[0.1, 0.1, 0.5, 0.5, dog], [0.175, 0.2, 1, 1, person]]
    np.testing.assert_allclose(label_of(voc, "one"), expected, rtol=1e-6)


def test_image_without_objects_is_kept(voc: Path) -> None:
    assert label_of(voc, "three").shape == (0, 5)


def test_size_comes_from_the_image_where_the_annotation_has_none(voc: Path) -> None:
    np.testing.assert_allclose(label_of(voc, "four")[0, :4], [0.25, 0.5, 0.5, 1])


def test_difficult_objects_are_kept_unless_asked_otherwise(voc: Path) -> None:
    assert label_of(voc, "two").shape == (1, 5)
    assert label_of(voc, "two", VocLabels(keep_difficult=False)).shape == (0, 5)
    assert label_of(voc, "one", VocLabels(keep_difficult=False)).shape == (2, 5)


def test_classes_choose_and_number_objects(voc: Path) -> None:
    label = label_of(voc, "one", VocLabels(("car", "person")))
    assert label[:, 4].tolist() == [1]


def test_class_that_voc_does_not_have(voc: Path) -> None:
    annotate(voc, "one", SIZE + thing("drone", (1, 1, 2, 2)))
    with pytest.raises(InputError, match=r"(?s)'drone' in .*one\.xml.*classes="):
        label_of(voc, "one")


@pytest.mark.parametrize("classes", ["dog", [], ["dog", " Dog"], [1]])
def test_classes_that_are_no_list_of_names(voc: Path, classes: Any) -> None:
    with pytest.raises(InputError, match="each once"):
        write_voc(str(voc), [(2007, "trainval")], str(voc / "out"), classes)


@pytest.mark.spark
def test_splits_are_joined_in_their_order(spark: SparkSession, voc: Path, tmp_path: Path) -> None:
    split(voc, "a", "four\n")
    split(voc, "b", "two\none\n")
    write_voc(str(voc), [(2007, "a"), (2007, "b")], str(tmp_path / "out"))
    assert list(stored(tmp_path / "out")) == ["four", "two", "one"]


@pytest.mark.spark
def test_list_of_one_class_leaves_out_images_without_it(
    spark: SparkSession, voc: Path, tmp_path: Path
) -> None:
    split(voc, "dog_train", "one  1\ntwo -1\nfour  0\n")
    write_voc(str(voc), [(2007, "dog_train")], str(tmp_path / "out"))
    assert list(stored(tmp_path / "out")) == ["one", "four"]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([(2007, "gone")], r"list of split 'gone' of 2007"),
        ([(1999, "trainval")], r"VOC1999"),
        ([(2007, "empty")], "empty lists"),
        ([], "empty lists"),
        ((2007, "trainval"), "as pairs"),
    ],
)
def test_splits_that_are_not_there(voc: Path, splits: Any, message: str) -> None:
    split(voc, "empty", "\n \n")
    with pytest.raises(InputError, match=message):
        write_voc(str(voc), splits, str(voc / "out"))
    assert not (voc / "out").exists()


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;&b;">]>'
BAD = {
    "no XML": "<object>",
    "reversed box": SIZE + thing("dog", (10, 1, 2, 5)),
    "box outside": SIZE + thing("dog", (30, 1, 40, 5)),
    "not a number": SIZE + thing("dog", ("a", 1, 2, 5)),
    "nan": SIZE + thing("dog", ("nan", 1, 2, 5)),
    "no box": SIZE + "<object><name>dog</name></object>",
}


def test_flat_box_costs_itself_only(voc: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotate(voc, "one", SIZE + thing("dog", (2, 1, 2, 5)) + thing("dog", (2, 1, 10, 5)))
    np.testing.assert_allclose(label_of(voc, "one")[:, :4], [[0.1, 0.1, 0.5, 0.5]])
    assert "left out 1 objects" in caplog.text


STRICT = VocLabels(strict_boxes=True)


@pytest.mark.parametrize("box", [(2, 1, 2, 5), (2, 1, 21, 5), (-1, 1, 5, 5), (9, 1, 3, 5)])
def test_strict_boxes_are_neither_left_out_nor_cut_off(voc: Path, box: tuple[int, ...]) -> None:
    annotate(voc, "one", SIZE + thing("dog", (0, 0, 20, 10)) + thing("dog", box))
    numbers = ", ".join(f"{float(side)}" for side in box)
    with pytest.raises(InputError, match=rf"inside 20 x 10 .*\({numbers}\) \(.*one\.xml\)"):
        label_of(voc, "one", STRICT)


def test_strict_boxes_that_are_good_stay_as_they_are(voc: Path) -> None:
    annotate(voc, "one", SIZE + thing("dog", (0, 0, 20, 10)))
    assert (label_of(voc, "one", STRICT) == label_of(voc, "one")).all()


@pytest.mark.spark
def test_difficult_objects_are_marked(spark: SparkSession, voc: Path, tmp_path: Path) -> None:
    annotate(voc, "one", SIZE + thing("dog", (2, 1, 2, 5), 1) + thing("dog", (2, 1, 10, 5), None))
    write_voc(str(voc), [(2007, "trainval")], str(tmp_path / "out"), mark_difficult=True)
    rows = read_parquet("spark", str(tmp_path / "out")).collect()
    marks = {Path(row.image_id).stem: decode_ndarray(row.difficult) for row in rows}
    assert {name: mark.tolist() for name, mark in marks.items()} == {
        "one": [0], "two": [1], "three": [], "four": [0],
    }  # fmt: skip
    assert all(mark.dtype == np.uint8 for mark in marks.values())


def test_image_of_another_size_than_annotated(voc: Path, tmp_path: Path) -> None:
    annotate(voc, "two", SIZE.replace("20", "40") + thing("cat", (0, 0, 20, 10)))
    records = list(_records(voc, ALL, [(2007, name) for name in ("one", "two")]))
    (tmp_path / "out").mkdir()
    chunk = tmp_path / "out" / "chunk=0"
    with pytest.raises(InputError, match=r"20 x 10 pixels; received one for 40 x 10 .*two\.jpg"):
        write_chunk(chunk, SCHEMA, records)
    assert write_chunk(chunk, SCHEMA, records, Screening("skip")).bad == 1
    assert write_chunk(chunk, SCHEMA, records, Screening("skip", "none")).bad == 0


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_bad_annotation_is_named(voc: Path, body: str) -> None:
    annotate(voc, "one", body)
    with pytest.raises(InputError, match=r"one\.xml"):
        label_of(voc, "one")


def test_document_type_is_refused(voc: Path) -> None:
    file = voc / "VOC2007" / "Annotations" / "one.xml"
    file.write_text(f"{BOMB}<annotation>&c;</annotation>", encoding="utf-8")
    with pytest.raises(InputError, match=r"one\.xml.*document type"):
        label_of(voc, "one")


@pytest.mark.parametrize("part", ["Annotations/two.xml", "JPEGImages/two.jpg"])
@pytest.mark.spark
def test_missing_file_is_named(spark: SparkSession, voc: Path, part: str) -> None:
    (voc / "VOC2007" / part).unlink()
    with pytest.raises(InputError, match=part.split("/")[1]):
        write_voc(str(voc), [(2007, "trainval")], str(voc / "out"))


@pytest.mark.spark
def test_bad_records_are_skipped_when_asked(spark: SparkSession, voc: Path) -> None:
    annotate(voc, "two", BAD["reversed box"])
    (voc / "VOC2007" / "JPEGImages" / "three.jpg").write_bytes(b"no image")
    write_voc(str(voc), [(2007, "trainval")], str(voc / "out"), on_error="skip")
    assert list(stored(voc / "out")) == ["one", "four"]


@pytest.mark.spark
def test_another_file_system(spark: SparkSession, voc: Path, tmp_path: Path) -> None:
    write_voc(f"local://{voc}", [(2007, "trainval")], f"local://{tmp_path}/out")
    assert list(stored(tmp_path / "out")) == list(ANNOTATIONS)


@pytest.mark.skipif(not REAL.is_dir(), reason="the ten real images are not here")
@pytest.mark.spark
def test_ten_real_images(spark: SparkSession, tmp_path: Path) -> None:
    write_voc(str(REAL), [(2007, "trainval")], str(tmp_path / "out"), block_size=4)
    rows = stored(tmp_path / "out")
    assert len(rows) == 10
    assert rows["000009"][1][0] == pytest.approx([69 / 500, 172 / 375, 270 / 500, 330 / 375, 12])
    assert all(check_image(data, "decode") is None for data, _ in rows.values())
    assert all(
        (label[:, :4] >= 0).all() and (label[:, :4] <= 1).all() for _, label in rows.values()
    )
