import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from zoo.errors import ColumnError, InputError
from zoo.orca.data.image.image_frame import (
    _checked,
    _nested,
    _Work,
    read_images,
    transform_images,
)
from zoo.orca.data.image.ndarray_codec import encode_ndarray
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.image.transforms import (
    CenterCrop,
    ColorJitter,
    Normalize,
    RandomCrop,
    RandomFlip,
    Resize,
    ToCHW,
)
from zoo.orca.data.tensors.plan_columns import plan_columns

needs_spark = pytest.mark.spark
SMALL = ImagePipeline(Resize(4, 5), ToCHW())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, make_picture: Any) -> Path:
    """Two folders, one inside the other, with names that are hard on paths."""
    root = tmp_path_factory.mktemp("pictures *[1]")
    inner = root / "dog's [b]" / "line\nbreak"
    inner.mkdir(parents=True)
    (root / "chat ébène").mkdir()
    for number, folder in enumerate((root / "chat ébène", inner, inner.parent)):
        for image in range(3):
            data = make_picture(8 + number, 6 + image, seed=10 * number + image)
            (folder / f"ß {image}%20#?.png").write_bytes(data)
    (root / ".hidden.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def frame(spark: SparkSession, make_picture: Any) -> DataFrame:
    """Twelve images of several sizes in three partitions, and what is to stay as it is."""
    rows = [
        (f"{n}.png", make_picture(6 + n, 9, seed=n), n, [[0.0, 0.0, 0.5, 1.0, 7.0]])
        for n in range(12)
    ]
    schema = "path string, image binary, number int, boxes array<array<float>>"
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, 3), schema)


def paths(frame: DataFrame) -> list[str]:
    return [row["path"] for row in frame.select("path").collect()]


# Reading


@needs_spark
def test_folder_is_read_in_the_order_of_names(spark: SparkSession, pictures: Path) -> None:
    rows = read_images(pictures).collect()
    files = sorted(str(file) for file in pictures.rglob("*.png") if file.name[0] != ".")
    assert [row["path"] for row in rows] == files
    assert [bytes(row["image"]) for row in rows] == [Path(file).read_bytes() for file in files]


@needs_spark
def test_other_file_systems_are_read_by_tasks(spark: SparkSession, pictures: Path) -> None:
    rows = read_images(f"local://{pictures}").collect()
    assert [row["path"] for row in rows] == [
        f"local://{path}" for path in paths(read_images(pictures))
    ]
    assert all(Image.open(io.BytesIO(row["image"])).size for row in rows)


@needs_spark
def test_folders_give_labels(spark: SparkSession, pictures: Path) -> None:
    rows = read_images(pictures, label_from_folder=True).collect()
    found = {(row["label"], row["label_str"]) for row in rows}
    assert found == {(0, "chat ébène"), (1, "dog's [b]")}
    inner = [row["label"] for row in rows if "line\nbreak" in row["path"]]
    assert inner == [1, 1, 1]


@needs_spark
def test_patterns_files_and_lists(spark: SparkSession, pictures: Path) -> None:
    one = pictures / "chat ébène" / "ß 0%20#?.png"
    assert paths(read_images(one)) == [str(one)]
    assert len(paths(read_images([one, one, pictures / "dog's [b]"]))) == 7


@needs_spark
def test_pattern(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.jpg", "b/1.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = read_images(f"{tmp_path}/*/1.png", label_from_folder=True)
    assert [row["label_str"] for row in found.collect()] == ["a", "b"]
    assert len(paths(read_images(f"local://{tmp_path}/[ab]/*"))) == 3
    assert paths(read_images(tmp_path, recursive=False)) == [f"{tmp_path}/c.png"]


@needs_spark
def test_partitions_share_the_files(spark: SparkSession, pictures: Path) -> None:
    assert read_images(pictures, min_partitions=6).rdd.getNumPartitions() == 6
    assert read_images(pictures, min_partitions=90).rdd.getNumPartitions() == 9


@needs_spark
def test_unreadable_files_are_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "good.png").write_bytes(b"x")
    with pytest.raises(PySparkException, match=r"(?s)InputError.*empty\.png', an empty file"):
        read_images(tmp_path).collect()
    assert paths(read_images(tmp_path, on_error="skip")) == [f"{tmp_path}/good.png"]
    bad, good = read_images(tmp_path, on_error="quarantine").collect()
    assert (bad["image"], bad["reason"], good["reason"]) == (None, "an empty file", None)


@needs_spark
def test_file_that_is_gone_is_one_bad_row(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    frame = read_images(tmp_path, on_error="quarantine")
    (tmp_path / "a.png").unlink()
    assert frame.collect()[0]["reason"] == "FileNotFoundError: No such file or directory"


@needs_spark
def test_file_whose_name_is_no_text(spark: SparkSession, tmp_path: Path) -> None:
    (Path(str(tmp_path)) / "a\udcff.png").write_bytes(b"x")
    (row,) = read_images(tmp_path, on_error="quarantine").collect()
    assert row["path"].endswith(r"a\xff.png")
    assert "FileNotFoundError" in row["reason"]


@pytest.mark.parametrize("name", ["gone.png", "gone/*.png", ""])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Check the path"):
        read_images(tmp_path / name)


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_partitions_that_cannot_be(tmp_path: Path, number: Any) -> None:
    with pytest.raises(InputError, match="min_partitions"):
        read_images(tmp_path, min_partitions=number)


def test_no_path_at_all() -> None:
    with pytest.raises(InputError, match="no path"):
        read_images([])


def test_labels_need_folders(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="beside them"):
        read_images(tmp_path, label_from_folder=True)


def test_unknown_way_to_treat_bad_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'fail', 'skip' or 'quarantine'"):
        read_images(tmp_path, on_error="ignore")  # type: ignore[arg-type]


# Transforming


@needs_spark
def test_arrays_rows_and_order(frame: DataFrame) -> None:
    made = transform_images(frame, SMALL).frame
    assert made.columns == frame.columns
    for before, after in zip(frame.collect(), made.collect(), strict=True):
        assert before["number"] == after["number"]
        np.testing.assert_array_equal(np.float32(after["image"]), SMALL(before["image"]))


@needs_spark
def test_new_column_beside_the_bytes(frame: DataFrame) -> None:
    made = transform_images(frame, SMALL, output="pixels").frame
    assert made.columns == [*frame.columns, "pixels"]
    row = made.first()
    assert row is not None
    assert bytes(row["image"][:4]) == b"\x89PNG"
    assert np.shape(row["pixels"]) == (3, 4, 5)


@needs_spark
def test_bytes_become_shorts_of_each_images_size(frame: DataFrame) -> None:
    made = transform_images(frame, ImagePipeline(mode="L")).frame
    assert made.schema["image"].dataType.simpleString() == "array<array<array<smallint>>>"
    shapes = [np.shape(row["image"]) for row in made.collect()]
    assert shapes == [(6 + n, 9, 1) for n in range(12)]


@needs_spark
def test_result_is_what_an_estimator_plans_for(frame: DataFrame) -> None:
    made = transform_images(frame, SMALL).frame
    plan = plan_columns(made.schema, ["image"], ["number"])
    assert plan.features[0].dtype == "float32"


@needs_spark
@pytest.mark.parametrize("encode", ["jpeg", "png"])
def test_files_stay_files(frame: DataFrame, encode: Any) -> None:
    made = transform_images(frame, ImagePipeline(Resize(64, 64), mode="L"), encode=encode).frame
    images = [Image.open(io.BytesIO(row["image"])) for row in made.limit(2).collect()]
    assert [(one.format, one.size, one.mode) for one in images] == [
        (encode.upper(), (64, 64), "L")
    ] * 2


@needs_spark
def test_boxes_move_in_their_column(frame: DataFrame) -> None:
    pipeline = ImagePipeline(RandomFlip(1.0), Resize(4, 4), ToCHW())
    made = transform_images(frame, pipeline, boxes="boxes").frame
    assert made.columns == frame.columns
    assert [row["boxes"] for row in made.collect()] == [[[0.5, 0.0, 1.0, 1.0, 7.0]]] * 12
    with pytest.raises(InputError, match="Name two"):
        transform_images(frame, pipeline, boxes="boxes", output="boxes")


@needs_spark
def test_boxes_of_a_dataset_and_none_left(spark: SparkSession, make_picture: Any) -> None:
    boxes = [encode_ndarray(np.float32([box])) for box in ([0, 0, 0.1, 0.1], [0.4, 0.4, 0.6, 0.6])]
    rows = [(make_picture(10, 10), one) for one in boxes]
    frame = spark.createDataFrame(rows, "image binary, label binary").coalesce(1)
    pipeline = ImagePipeline(CenterCrop(4))
    made = transform_images(frame, pipeline, boxes="label", encode="png").frame.collect()
    assert made[0]["label"] == []
    np.testing.assert_allclose(made[1]["label"], [[0.25, 0.25, 0.75, 0.75]], atol=1e-6)


@needs_spark
def test_random_steps_are_the_same_whenever_evaluated(frame: DataFrame) -> None:
    pipeline = ImagePipeline(RandomCrop(5), ColorJitter(0.5), ToCHW())
    made = transform_images(frame, pipeline).frame
    one, two = ([row["image"] for row in made.collect()] for _ in range(2))
    assert one == two
    some = made.filter("number > 8").collect()
    assert [row["image"] for row in some] == one[9:]
    other = transform_images(frame, ImagePipeline(*pipeline.steps, seed=1)).frame.collect()
    assert [row["image"] for row in other] != one


@needs_spark
def test_names_with_dots_and_vectors_beside(spark: SparkSession, make_picture: Any) -> None:
    from pyspark.ml.linalg import Vectors

    rows = [(make_picture(4, 4), Vectors.dense([1.0, 2.0]))]
    frame = spark.createDataFrame(rows, ["my.image", "a`vector"])
    row = transform_images(frame, SMALL, image="my.image").frame.first()
    assert row is not None
    assert np.shape(row["my.image"]) == (3, 4, 5)
    assert row["a`vector"] == Vectors.dense([1.0, 2.0])


# Bad images


def with_bad(frame: DataFrame) -> DataFrame:
    return frame.selectExpr(
        "path", "number", "if(number in (3, 7), substring(image, 1, 60), image) AS image"
    )


@needs_spark
@pytest.mark.parametrize("on_error", ["skip", "quarantine"])
def test_bad_images_are_left_out_counted_and_listed(frame: DataFrame, on_error: Any) -> None:
    result = transform_images(with_bad(frame), SMALL, on_error=on_error)
    assert [row["number"] for row in result.frame.collect()] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert result.counts() == {"ok": 10, "bad": 2}
    bad = result.bad.collect()
    assert [row["path"] for row in bad] == ["3.png", "7.png"]
    assert all("end early or are damaged" in row["reason"] for row in bad)


@needs_spark
def test_bad_image_fails_with_its_path_and_reason(frame: DataFrame) -> None:
    result = transform_images(with_bad(frame), SMALL)
    with pytest.raises(PySparkException, match=r"(?s)InputError.*'[37]\.png'.*end early"):
        result.frame.collect()
    assert result.counts() == {"ok": 10, "bad": 2}


@needs_spark
def test_bad_image_without_a_path_is_named_by_its_place(frame: DataFrame) -> None:
    unnamed = with_bad(frame).drop("path").coalesce(1)
    with pytest.raises(PySparkException, match="row 3 of partition 0"):
        transform_images(unnamed, SMALL).frame.collect()
    bad = transform_images(unnamed, SMALL, on_error="skip").bad.collect()
    assert [(row["path"], row["partition"], row["row"]) for row in bad] == [
        (None, 0, 3),
        (None, 0, 7),
    ]


@needs_spark
def test_files_that_could_not_be_read_keep_their_reason(
    spark: SparkSession, tmp_path: Path, make_picture: Any
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").write_bytes(make_picture(4, 4))
    read = read_images(tmp_path, on_error="quarantine")
    result = transform_images(read, SMALL, on_error="quarantine")
    assert result.counts() == {"ok": 1, "bad": 1}
    (bad,) = result.bad.collect()
    assert "an empty file" in bad["reason"]


@needs_spark
def test_bad_boxes_make_a_bad_row(spark: SparkSession, make_picture: Any) -> None:
    rows = [(make_picture(4, 4), [[0.5, 0.0, 0.1, 1.0]]), (make_picture(4, 4), None)]
    frame = spark.createDataFrame(rows, "image binary, boxes array<array<float>>")
    result = transform_images(frame, SMALL, boxes="boxes", on_error="skip")
    assert result.counts() == {"ok": 0, "bad": 2}
    assert result.frame.count() == 0


# Mutated images


def _png_bomb() -> bytes:
    """A real PNG of 40,000 x 40,000 pixels: a few bytes for gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def mutated(count: int, make_picture: Callable[..., bytes]) -> tuple[list[tuple[str, bytes]], int]:
    """Images by name, and how many of them are surely bad."""
    rng = np.random.default_rng(11)
    rows: list[tuple[str, bytes]] = []
    for n in range(count // 4):
        kind = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")[n % 7]
        whole = make_picture(16, 12, seed=n, kind=kind)
        flipped = bytearray(whole)
        flipped[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        rows += [
            (f"wrong extension {n}.txt", whole),
            (f"flipped {n}.png", bytes(flipped)),
            (f"half {n}.png", whole[: len(whole) // 2]),
            (f"nothing {n}.png", b"" if n % 2 else _png_bomb()),
        ]
    return rows, count // 4 * 2


@needs_spark
def test_a_thousand_mutated_images_are_each_counted_once(
    spark: SparkSession, make_picture: Any
) -> None:
    rows, surely_bad = mutated(1000, make_picture)
    frame = spark.createDataFrame(pd.DataFrame(rows, columns=["path", "image"]))
    pipeline = ImagePipeline(Resize(8, 8), ToCHW(), Normalize(0.5, 0.5))
    result = transform_images(frame, pipeline, on_error="quarantine")
    good = set(paths(result.frame))
    bad = {row["path"]: row["reason"] for row in result.bad.collect()}
    assert good | set(bad) == {name for name, _ in rows}
    assert result.counts() == {"ok": len(good), "bad": len(bad)}
    assert {name for name in good if not name.startswith("flipped")} == {
        name for name, _ in rows if name.startswith("wrong")
    }
    assert len([name for name in bad if not name.startswith("flipped")]) == surely_bad
    assert all("at most 67108864 pixels" in bad[f"nothing {n}.png"] for n in range(0, 250, 2))


# Misuse


@needs_spark
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image": "photo"}, "column 'photo'"),
        ({"image": "number"}, "bytes of image files in column 'number'"),
        ({"boxes": "number"}, "arrays of arrays in column 'number'"),
        ({"boxes": "labels"}, "column 'labels'"),
        ({"path": "name"}, "column 'name'"),
    ],
)
def test_columns_that_cannot_be(frame: DataFrame, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ColumnError, match=said):
        transform_images(frame, SMALL, **settings)


@needs_spark
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_error": "drop"}, "on_error"),
        ({"encode": "gif"}, "encode 'jpeg' or 'png'"),
        ({"encode": "png"}, "ends with a picture"),
    ],
)
def test_settings_that_do_not_fit(frame: DataFrame, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        transform_images(frame, SMALL, **settings)


@needs_spark
def test_jpeg_has_no_alpha(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="encode='png'"):
        transform_images(frame, ImagePipeline(mode="RGBA"), encode="jpeg")


# Packing


def test_whole_numbers_stay_what_they_are() -> None:
    work = _Work(ImagePipeline(ToCHW()), "fail", None, False, rank=1, whole=True)
    assert _checked(np.array([2**24]), work).tolist() == [2**24]
    with pytest.raises(InputError, match=r"2\*\*24; received int64"):
        _checked(np.array([2**24 + 1]), work)


@pytest.mark.parametrize(
    "shapes",
    [[(2, 3)], [(2, 3), (4, 1)], [(0, 5), (3, 2)], [None, (1, 1), None], [None], []],
)
def test_arrays_as_nested_lists(shapes: list[tuple[int, int] | None]) -> None:
    arrays = [None if s is None else np.random.default_rng(1).random(s) for s in shapes]
    nested = _nested(arrays, 2, np.float64)
    nested.validate(full=True)
    assert nested.to_pylist() == [None if a is None else a.tolist() for a in arrays]


def test_arrays_of_three_dimensions_and_bytes() -> None:
    arrays = [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.full((1, 1, 2), 255, np.uint8)]
    nested = _nested(arrays, 3, np.int16)
    assert nested.type == pa.list_(pa.list_(pa.list_(pa.int16())))
    assert nested.to_pylist() == [a.tolist() for a in arrays]
