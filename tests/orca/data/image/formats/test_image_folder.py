import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.image import (
    read_parquet,
    write_from_directory,
    write_parquet,
)
from zoo.orca.data.image.formats.image_folder import _numbered_classes
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.layout.quarantine import read_quarantine
from zoo.orca.data.image.writing.verify import Verify

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


def test_class_folders_that_are_numbers_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("0", "1", "10", "2", ".hidden"):
        (tmp_path / name).mkdir()
    assert _numbered_classes(tmp_path) == {"0": 0, "1": 1, "10": 2, "2": 3}
    assert "'10' is 2, '2' is 3" in caplog.text
    caplog.clear()
    (tmp_path / "10").rmdir()
    assert _numbered_classes(tmp_path) == {"0": 0, "1": 1, "2": 2}
    assert not caplog.records


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
    with pytest.raises(InputError, match="a name that is no text"):
        write_from_directory(str(classes), None, str(tmp_path / "out"))
    write_from_directory(str(classes), None, str(tmp_path / "out"), on_error="quarantine")
    assert len(ids(tmp_path / "out")) == 9
    assert read_quarantine(tmp_path / "out")["path"][0].endswith("/\\udcff.png")


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


@pytest.mark.spark
def test_folder_and_output_on_any_file_system(
    spark: SparkSession, classes: Path, tmp_path: Path
) -> None:
    write_from_directory(f"local://{classes}", None, f"local://{tmp_path}/there", block_size=4)
    write_from_directory(str(classes), None, str(tmp_path / "here"), block_size=4)
    assert [name.removeprefix("local://") for name in ids(tmp_path / "there")] == ids(
        tmp_path / "here"
    )
    assert sorted(os.listdir(tmp_path / "there")) == sorted(os.listdir(tmp_path / "here"))


@pytest.mark.spark
def test_names_with_newlines_and_brackets(
    spark: SparkSession, tmp_path: Path, make_picture: Callable[..., bytes]
) -> None:
    folder = tmp_path / "in" / "a\nb [1] {2}"
    folder.mkdir(parents=True)
    names = ["new\nline.jpg", "?#%20&.jpg", "日本 .jpg", "back\\slash.jpg"]
    for name in names:
        (folder / name).write_bytes(make_picture(4, 4, kind="JPEG"))
    write_from_directory(str(tmp_path / "in"), None, str(tmp_path / "out"))
    assert sorted(ids(tmp_path / "out")) == sorted(str(folder / name) for name in names)


@pytest.fixture
def flawed(classes: Path, make_picture: Callable[..., bytes]) -> Path:
    """Ten good images, one of them with a wrong suffix, and four bad ones."""
    folder = classes / "dog's [b]"
    (folder / "ß 0%20.png").rename(folder / "wrong suffix.jpg")
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("I am an image!")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "cut.png").write_bytes(make_picture(40, 40)[:900])
    return classes


@pytest.mark.spark
@pytest.mark.parametrize(("verify", "bad"), [("none", 2), ("header", 3), ("decode", 4)])
def test_skipped_files_are_counted(
    spark: SparkSession,
    flawed: Path,
    tmp_path: Path,
    verify: Verify,
    bad: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    write_from_directory(str(flawed), None, str(out), block_size=4, on_error="skip", verify=verify)
    manifest = open_dataset(out).manifest
    assert manifest is not None
    assert (manifest.rows, manifest.skipped, manifest.quarantined) == (14 - bad, bad, 0)
    assert read_parquet("spark", str(out)).count() == 14 - bad
    assert f"{bad} bad files were left out, skipped" in caplog.text


@pytest.mark.spark
def test_quarantined_files_are_listed(spark: SparkSession, flawed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_from_directory(
        str(flawed), None, str(out), False, block_size=4, on_error="quarantine", verify="decode"
    )
    listed = read_quarantine(out)
    assert [Path(path).name for path in listed["path"]] == [
        "cut.png",
        "empty.png",
        "gone.png",
        "text.png",
    ]
    said = ["cut short", "zero bytes", "No such file", "no image"]
    assert all(word in reason for word, reason in zip(said, listed["reason"], strict=True))
    manifest = open_dataset(out).manifest
    assert manifest is not None
    assert (manifest.rows, manifest.skipped, manifest.quarantined) == (10, 0, 4)


@pytest.mark.spark
def test_chunk_without_a_good_file(spark: SparkSession, flawed: Path, tmp_path: Path) -> None:
    write_from_directory(
        str(flawed), None, str(tmp_path / "out"), block_size=1, on_error="skip", verify="decode"
    )
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest is not None
    assert sorted(file.rows for file in dataset.manifest.files) == [0] * 4 + [1] * 10
    assert read_parquet("spark", str(tmp_path / "out")).count() == 10


@pytest.mark.spark
def test_only_bad_files_are_an_error(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in" / "cats").mkdir(parents=True)
    (tmp_path / "in" / "cats" / "a.jpg").touch()
    with pytest.raises(InputError, match="1 bad ones"):
        write_from_directory(str(tmp_path / "in"), None, str(tmp_path / "out"), on_error="skip")
    assert not (tmp_path / "out").exists()


def test_words_that_are_none_of_the_choices(classes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="on_error 'fail', 'skip'"):
        write_parquet(
            "image_folder", str(tmp_path / "out"), directory=str(classes), on_error="ignore"
        )
