import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from zoo.errors import ClusterError, InputError
from zoo.orca.data.image import (
    DType,
    FeatureType,
    SchemaField,
    read_parquet,
    write_from_directory,
    write_parquet,
)
from zoo.orca.data.image.spark_writer import _write_part, write_parts

LABELS = {"chat ébène": 0, "dog's [b]": 1}


def ids(path: Path) -> list[str]:
    """The image paths of a dataset in the order in which they are stored."""
    return [batch["image_id"][0] for batch in read_parquet("dataloader", str(path))]


@pytest.mark.spark
def test_every_file_becomes_a_record(spark: SparkSession, classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_parquet("image_folder", f"file://{out}", directory=f"file://{classes}", block_size=4)
    assert len(list(out.glob("chunk=*"))) == 3
    frame = read_parquet("spark", str(out))
    assert frame.columns == ["image", "label", "image_id", "label_str"]
    rows = frame.collect()
    files = sorted(str(file) for file in classes.rglob("*.png"))
    assert sorted(row.image_id for row in rows) == files
    for row in rows:
        assert bytes(row.image) == Path(row.image_id).read_bytes()
        assert row.label_str == Path(row.image_id).parent.name
        assert row.label == LABELS[row.label_str]


@pytest.mark.spark
def test_chunks_are_written_by_workers(spark: SparkSession, tmp_path: Path) -> None:
    def where_it_runs(part: str) -> Iterator[dict[str, Any]]:
        yield {"part": part, "process": os.getpid()}

    schema = {
        "part": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
        "process": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    }
    out = str(tmp_path / "out")
    write_parts(out, ["a", "b"], where_it_runs, schema=schema, write_mode="error")
    rows = read_parquet("spark", out).collect()
    assert sorted(row.part for row in rows) == ["a", "b"]
    assert os.getpid() not in {row.process for row in rows}


@pytest.mark.spark
def test_label_map_chooses_classes(spark: SparkSession, classes: Path, tmp_path: Path) -> None:
    write_from_directory(str(classes), {"dog's [b]": 7, "none": 1}, str(tmp_path / "out"))
    labels = read_parquet("spark", str(tmp_path / "out")).select("label", "label_str").collect()
    assert [tuple(label) for label in labels] == [(7, "dog's [b]")] * 5


@pytest.mark.spark
def test_without_shuffle_the_order_is_that_of_names(
    spark: SparkSession, classes: Path, tmp_path: Path
) -> None:
    write_from_directory(str(classes), LABELS, str(tmp_path / "out"), False, block_size=3)
    assert ids(tmp_path / "out") == sorted(str(file) for file in classes.rglob("*.png"))


@pytest.mark.spark
def test_shuffle_follows_its_seed(spark: SparkSession, classes: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_from_directory(str(classes), LABELS, str(tmp_path / name), seed=seed, block_size=4)
    first, again, other = (ids(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


@pytest.mark.spark
def test_other_files_are_skipped_and_counted(
    spark: SparkSession, classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (classes / "chat ébène" / "readme.txt").touch()
    (classes / "chat ébène" / "._ß 0.png").touch()
    (classes / "chat ébène" / "ß 0%20.png").rename(classes / "chat ébène" / "UP.PNG")
    (classes / "list.txt").touch()
    write_from_directory(str(classes), None, str(tmp_path / "out"))
    assert len(ids(tmp_path / "out")) == 10
    assert "skipped 2 entries" in caplog.text


@pytest.mark.spark
@pytest.mark.parametrize("kind", ["zero bytes", "No such file"])
def test_file_that_cannot_be_written_is_named(
    spark: SparkSession, classes: Path, tmp_path: Path, kind: str
) -> None:
    write_from_directory(str(classes), None, str(tmp_path / "out"))
    stored = ids(tmp_path / "out")
    bad = classes / "dog's [b]" / "bad.png"
    if kind == "zero bytes":
        bad.touch()
    else:
        bad.symlink_to("nowhere")
    with pytest.raises(InputError, match=rf"bad\.png.*{kind}"):
        write_from_directory(str(classes), None, str(tmp_path / "out"), block_size=1)
    assert ids(tmp_path / "out") == stored
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my images", "out"]


@pytest.mark.spark
def test_name_that_is_no_text(spark: SparkSession, tmp_path: Path, classes: Path) -> None:
    os.rename(classes / "dog's [b]" / "ß 0%20.png", os.fsencode(classes) + b"/dog's [b]/\xff.png")
    with pytest.raises(InputError, match="image_id"):
        write_from_directory(str(classes), None, str(tmp_path / "out"))


@pytest.mark.spark
def test_folders_without_an_image(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image"):
        write_from_directory(str(tmp_path), None, str(tmp_path / "out"))
    (tmp_path / "in" / "cats").mkdir(parents=True)
    (tmp_path / "in" / "cats" / "a.txt").touch()
    with pytest.raises(InputError, match="1 classes, 1 other files and no image"):
        write_from_directory(str(tmp_path / "in"), None, str(tmp_path / "out"))
    with pytest.raises(InputError, match="a folder of class folders"):
        write_from_directory(str(tmp_path / "gone"), None, str(tmp_path / "out"))


@pytest.mark.spark
def test_errorifexists(spark: SparkSession, classes: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="does not exist"):
        write_parquet(
            "image_folder",
            str(tmp_path / "out"),
            directory=str(classes),
            write_mode="errorifexists",
        )


def test_without_spark_it_says_so(classes: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from zoo.orca.data.image import write_parquet\n"
        "write_parquet('image_folder', sys.argv[2], directory=sys.argv[1])\n"
    )
    command = [sys.executable, "-c", program, str(classes), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "ClusterError" in done.stderr
    assert "init_orca_context" in done.stderr


def test_chunks_after_a_failure_are_not_written(classes: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    schema = {"x": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ())}
    parts = [[{"x": "gone.png"}], [{"x": str(next(classes.rglob("*.png")))}]]
    done = [_write_part(draft, schema, iter, part) for part in enumerate(parts)]
    assert isinstance(done[0].error, InputError)
    assert done[1] == (0, None)
    assert not list(draft.glob("chunk=*/part-*"))


def test_task_that_does_not_see_the_output(tmp_path: Path) -> None:
    written = _write_part(tmp_path / "elsewhere", {}, iter, (0, []))
    assert isinstance(written.error, ClusterError)
    assert "storage that all hosts share" in str(written.error)
