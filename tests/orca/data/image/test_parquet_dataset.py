import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from zoo.errors import ContractError, InputError
from zoo.orca.data import image as face
from zoo.orca.data.image import (
    DType,
    FeatureType,
    ParquetDataset,
    SchemaField,
    decode_ndarray,
    parquet_dataset,
    read_parquet,
    write_parquet,
)
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.layout.quarantine import read_quarantine
from zoo.orca.data.image.ndarray_codec import encode_ndarray
from zoo.orca.data.image.writing.chunk_file import ROW_GROUP_BYTES

SCHEMA = {
    "id": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "box": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (4,)),
    "weight": SchemaField(FeatureType.SCALAR, DType.FLOAT32, ()),
}
NUMBERS = {"x": SchemaField(FeatureType.SCALAR, DType.INT32, ())}
# The form that the original project wrote, made by hand.
OLD_METADATA = (
    '{"image": {"feature_type": {"__enum__": "FeatureType.IMAGE"}, '
    '"dtype": {"__enum__": "DType.FLOAT32"}, "shape": []}, '
    '"box": {"feature_type": {"__enum__": "FeatureType.NDARRAY"}, '
    '"dtype": {"__enum__": "DType.INT32"}, "shape": [-1, 5]}, '
    '"label": {"feature_type": {"__enum__": "FeatureType.SCALAR"}, '
    '"dtype": {"__enum__": "DType.INT32"}, "shape": []}}'
)


def records(files: list[Path]) -> Iterator[dict[str, Any]]:
    for number, file in enumerate(files):
        box = np.full(4, number, np.float32)
        yield {"id": f"é {number}", "image": str(file), "box": box, "weight": number / 2}


@pytest.fixture
def files(tmp_path: Path, make_picture: Callable[..., bytes]) -> list[Path]:
    found = [tmp_path / f"a b {number}.png" for number in range(5)]
    for number, file in enumerate(found):
        file.write_bytes(make_picture(4, 4, seed=number))
    return found


def test_layout_on_disk(tmp_path: Path, files: list[Path]) -> None:
    ParquetDataset.write(f"file://{tmp_path}/out", records(files), SCHEMA, block_size=2)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "_orca_metadata",
        "_zoo_files.json",
        "chunk=0",
        "chunk=1",
        "chunk=2",
    ]
    metadata = (out / "_orca_metadata").read_text()
    assert json.loads(metadata)["image"]["feature_type"] == {"__enum__": "FeatureType.IMAGE"}
    assert "\n" not in metadata
    table = pq.read_table(out / "chunk=0", partitioning=None)
    assert table.column_names == ["id", "image", "box", "weight"]
    assert table["image"].to_pylist() == [file.read_bytes() for file in files[:2]]
    assert table["box"][1].as_py() == encode_ndarray(np.ones(4, np.float32))
    assert table["weight"].to_pylist() == [0.0, 0.5]


@pytest.mark.spark
def test_frame_has_the_records(spark: SparkSession, tmp_path: Path, files: list[Path]) -> None:
    ParquetDataset.write(str(tmp_path / "out"), records(files), SCHEMA, block_size=2)
    frame = read_parquet("spark", str(tmp_path / "out"))
    assert frame.columns == list(SCHEMA)
    rows = frame.orderBy("id").collect()
    assert [bytes(row.image) for row in rows] == [file.read_bytes() for file in files]
    assert [decode_ndarray(bytes(row.box)).tolist() for row in rows] == [[n] * 4 for n in range(5)]


@pytest.mark.spark
def test_dataset_of_the_original_project(
    spark: SparkSession, tmp_path: Path, make_picture: Callable[..., bytes]
) -> None:
    pictures = [make_picture(4, 4, seed=n) for n in range(6)]
    box = encode_ndarray(np.ones((2, 5), np.int32))
    for chunk in range(2):
        rows = [(pictures[n], box, n) for n in range(3 * chunk, 3 * chunk + 3)]
        frame = spark.createDataFrame(rows, ["image", "box", "label"]).repartition(2)
        frame.write.parquet(f"{tmp_path}/old/chunk={chunk}")
    (tmp_path / "old" / "_orca_metadata").write_text(OLD_METADATA)
    frame = read_parquet("spark", f"{tmp_path}/old")
    assert {(bytes(row.image), row.label) for row in frame.collect()} == {
        (picture, n) for n, picture in enumerate(pictures)
    }
    loaded = list(read_parquet("dataloader", f"{tmp_path}/old"))
    assert sorted(int(batch["label"]) for batch in loaded) == list(range(6))
    assert {batch["box"].shape for batch in loaded} == {(1, 2, 5)}


@pytest.mark.spark
def test_names_that_spark_could_take_for_patterns(spark: SparkSession, tmp_path: Path) -> None:
    out = tmp_path / "é [a] {b,c} *?"
    ParquetDataset.write(str(out), ({"x": n} for n in range(3)), NUMBERS, block_size=2)
    assert read_parquet("spark", str(out)).count() == 3


def test_memory_is_bounded_by_row_groups(tmp_path: Path) -> None:
    schema = {"blob": SchemaField(FeatureType.SCALAR, DType.BYTES, ())}
    third = bytes(ROW_GROUP_BYTES // 3 + 1)
    ParquetDataset.write(str(tmp_path / "out"), ({"blob": third} for _ in range(7)), schema)
    file = pq.ParquetFile(next((tmp_path / "out" / "chunk=0").iterdir()))
    assert [file.metadata.row_group(n).num_rows for n in range(3)] == [3, 3, 1]


def test_generator_is_not_read_ahead(tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = []

    def watched() -> Iterator[dict[str, int]]:
        for number in range(6):
            seen.append(len(list(tmp_path.glob(".out.*/chunk=*/part-*"))))
            yield {"x": number}

    ParquetDataset.write(str(out), watched(), NUMBERS, block_size=2)
    assert seen == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("record", [{}, {"x": 1, "y": 2}, {"y": 1}, 5])
def test_records_have_exactly_the_keys_of_the_schema(tmp_path: Path, record: Any) -> None:
    with pytest.raises(AssertionError, match=r"keys of the schema, \['x'\]"):
        ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}, record], NUMBERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["text", "5", 1.5, 2**70, [1], float("nan")])
def test_value_that_does_not_fit_its_type(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match="column 'x'"):
        ParquetDataset.write(str(tmp_path / "out"), [{"x": value}], NUMBERS)


@pytest.mark.parametrize("number", [np.int32(7), np.uint8(7), np.int64(7), 7.0, 7])
def test_numbers_of_numpy_are_numbers(tmp_path: Path, number: int) -> None:
    ParquetDataset.write(str(tmp_path / "out"), [{"x": number}], NUMBERS)
    assert [int(batch["x"]) for batch in read_parquet("dataloader", str(tmp_path / "out"))] == [7]


def test_missing_image_file_is_named(tmp_path: Path) -> None:
    schema = {"image": SCHEMA["image"]}
    with pytest.raises(InputError, match=r"gone\.png"):
        ParquetDataset.write(str(tmp_path / "out"), [{"image": f"{tmp_path}/gone.png"}], schema)


@pytest.mark.parametrize("empty", [[], iter(())])
def test_no_record_is_an_error(tmp_path: Path, empty: Any) -> None:
    with pytest.raises(InputError, match="at least one record"):
        ParquetDataset.write(str(tmp_path / "out"), empty, NUMBERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("block_size", [0, -1, 2.5, None])
def test_block_size_out_of_range(tmp_path: Path, block_size: Any) -> None:
    with pytest.raises(InputError, match="block_size"):
        ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}], NUMBERS, block_size)


def test_ignore_mode_does_not_touch_the_generator(tmp_path: Path) -> None:
    generator = ({"x": n} for n in itertools.count())
    ParquetDataset.write(str(tmp_path), generator, NUMBERS, write_mode="ignore")
    assert next(generator) == {"x": 0}


def test_unknown_keywords_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}], NUMBERS, blocksize=3)
    assert "ignores ['blocksize']" in caplog.text


def test_unknown_formats() -> None:
    with pytest.raises(InputError, match="'image_folder', 'imagenet', 'mnist', 'voc'"):
        write_parquet("tiff", "out")
    with pytest.raises(InputError, match="'dataloader', 'spark'"):
        read_parquet("csv", "out")


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("image_folder", {"label_map": {}}, "directory"),
        ("mnist", {"image_file": "a"}, "label_file"),
        ("mnist", {"label_file": "a"}, "image_file"),
        ("voc", {"splits_names": []}, "voc_root_path"),
        ("voc", {"voc_root_path": "a"}, "splits_names"),
        ("coco", {"image_dir": "a"}, "annotation_file"),
        ("coco", {"annotation_file": "a"}, "image_dir"),
        ("imagenet", {}, "imagenet_path"),
        ("generator", {"schema": {}}, "generator"),
        ("generator", {"generator": []}, "schema"),
    ],
)
def test_missing_keywords_are_named(name: str, given: dict[str, Any], missing: str) -> None:
    with pytest.raises(ContractError, match=f"keyword {missing} ") as caught:
        write_parquet(name, "out", **given)
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize("reader", ["spark", "dataloader"])
def test_folders_that_are_no_dataset(tmp_path: Path, reader: str) -> None:
    with pytest.raises(InputError, match="folder of a dataset"):
        read_parquet(reader, str(tmp_path / "gone"))
    with pytest.raises(InputError, match="unfinished write"):
        read_parquet(reader, str(tmp_path))
    (tmp_path / "_orca_metadata").write_text("hello")
    with pytest.raises(InputError, match="line of JSON"):
        read_parquet(reader, str(tmp_path))


@pytest.mark.parametrize(("lost", "said"), [("chunk=1", "lacks chunk=1"), ("chunk=0", "chunk=0")])
def test_lost_chunk_is_noticed(tmp_path: Path, lost: str, said: str) -> None:
    ParquetDataset.write(str(tmp_path / "out"), ({"x": n} for n in range(3)), NUMBERS, 1)
    (tmp_path / "out" / lost).rename(tmp_path / lost)
    with pytest.raises(InputError, match=said):
        read_parquet("dataloader", str(tmp_path / "out"))


def test_misspelt_keywords_name_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'block_size'.*\['blocksize'\]"):
        write_parquet("mnist", "out", image_file="a", label_file="b", blocksize=3)
    with pytest.raises(InputError, match=r"'block_size'.*\['seed'\]"):
        write_parquet("generator", "out", generator=[], schema=NUMBERS, seed=3)
    with pytest.raises(InputError, match=r"\['shuffel'\]"):
        read_parquet("dataloader", str(tmp_path), shuffel=True)
    with pytest.raises(InputError, match=r"\['decoders'\]"):
        read_parquet("spark", str(tmp_path), decoders={})


def test_arguments_must_be_named() -> None:
    with pytest.raises(InputError, match="Name each argument"):
        write_parquet("mnist", "out", "images", image_file="a", label_file="b")
    with pytest.raises(InputError, match="Name each argument"):
        read_parquet("dataloader", "out", None, None, 1, 5)


def test_own_generator_and_schema_through_write_parquet(tmp_path: Path) -> None:
    rows = ({"x": n} for n in range(5))
    write_parquet("generator", str(tmp_path / "out"), generator=rows, schema=NUMBERS, block_size=2)
    dataset = open_dataset(tmp_path / "out")
    assert (len(dataset.chunks), dataset.schema) == (3, NUMBERS)


@pytest.mark.parametrize("scheme", ["memory://", "local://"])
def test_records_on_any_file_system(tmp_path: Path, files: list[Path], scheme: str) -> None:
    out, here = f"{scheme}{tmp_path}/out", tmp_path / "here"
    ParquetDataset.write(out, records(files), SCHEMA, block_size=2)
    ParquetDataset.write(str(here), records(files), SCHEMA, block_size=2)
    there = open_dataset(out)
    assert there.schema == SCHEMA
    assert [chunk.name for chunk in there.chunks] == ["chunk=0", "chunk=1", "chunk=2"]
    for name in ("chunk=2/part-00000.parquet", "_orca_metadata", "_zoo_files.json"):
        assert (there.path / name).read_bytes() == (here / name).read_bytes()


def test_bad_files_of_a_generator_are_left_out(tmp_path: Path, files: list[Path]) -> None:
    files[2].write_bytes(b"no image")
    ParquetDataset.write(
        str(tmp_path / "out"), records(files), SCHEMA, block_size=2, on_error="quarantine"
    )
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest is not None
    assert [file.rows for file in dataset.manifest.files] == [2, 1, 1]
    assert list(read_quarantine(tmp_path / "out")["path"]) == [str(files[2])]


def test_dataset_without_bad_files_has_an_empty_quarantine(tmp_path: Path) -> None:
    ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}], NUMBERS)
    assert list(read_quarantine(tmp_path / "out").columns) == ["path", "reason"]
    assert len(read_quarantine(tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.unlink(), "no file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes"),
        (lambda file: file.parent.rename(file.parent.parent / "away"), "chunk"),
    ],
)
def test_lost_or_cut_file_is_noticed(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    ParquetDataset.write(str(tmp_path / "out"), ({"x": n} for n in range(4)), NUMBERS, 2)
    change(tmp_path / "out" / "chunk=1" / "part-00000.parquet")
    with pytest.raises(InputError, match=said):
        open_dataset(tmp_path / "out")


def test_damaged_manifest_is_noticed(tmp_path: Path) -> None:
    ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}], NUMBERS)
    file = tmp_path / "out" / "_zoo_files.json"
    file.write_text(file.read_text().replace('"rows": 1', '"rows": 2'))
    with pytest.raises(InputError, match=r"checksum.*_zoo_files\.json"):
        open_dataset(tmp_path / "out")


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(face, name) is not None for name in face.__all__)
    with pytest.raises(AttributeError, match="write_png"):
        _ = face.write_png


@pytest.mark.parametrize(
    "settings", [{"transforms": len}, {"config": {"rank": 0}}, {"batch_size": 2}]
)
def test_settings_that_a_frame_has_no_use_for(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"for format 'spark'; received .*{next(iter(settings))}"):
        read_parquet("spark", str(tmp_path), **settings)


def test_writers_are_where_older_programs_look() -> None:
    for name in ("write_from_directory", "write_mnist", "write_voc"):
        assert getattr(parquet_dataset, name) is getattr(face, name)
