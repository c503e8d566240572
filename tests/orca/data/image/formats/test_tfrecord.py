import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from pyspark.sql import SparkSession

from zoo.errors import ClusterError, ContractError, InputError
from zoo.orca.data.image import read_tfrecord, write_tfrecord
from zoo.orca.data.image.formats.tfrecord import _as_jpeg, _make_file, read_examples

SYNSETS = ("n01440764", "n02102040", "n09999999")
FEW = {"train_files": 4, "validation_files": 2}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., bytes]) -> Path:
    """Ten training images of two classes, one of them a PNG and one CMYK, and three others."""
    root = tmp_path_factory.mktemp("imagenet")
    for synset in SYNSETS[:2]:
        (root / "train" / synset).mkdir(parents=True)
        for number in range(5):
            data = make_picture(8, 6, seed=number, kind="PNG" if number == 3 else "JPEG")
            (root / "train" / synset / f"{synset}_{number}.JPEG").write_bytes(data)
    buffer = io.BytesIO()
    Image.new("CMYK", (6, 8), (0, 255, 255, 0)).save(buffer, "JPEG")
    (root / "train" / SYNSETS[0] / f"{SYNSETS[0]}_4.JPEG").write_bytes(buffer.getvalue())
    (root / "validation").mkdir()
    for number in range(3):
        data = make_picture(8, 6, seed=number, kind="JPEG")
        (root / "validation" / f"ILSVRC2012_val_{number}.JPEG").write_bytes(data)
    (root / "synset_labels.txt").write_text("\n".join(SYNSETS) + "\n")
    return root


@pytest.fixture(scope="module")
def written(spark: SparkSession, imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("records [1]")
    write_tfrecord("imagenet", str(out), imagenet_path=str(imagenet), **FEW)
    return out


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.spark
def test_files_have_the_usual_names(written: Path) -> None:
    assert names(written) == ["train", "validation"]
    assert names(written / "train") == [f"train-{n:05d}-of-00004" for n in range(4)]
    assert names(written / "validation") == [f"validation-{n:05d}-of-00002" for n in range(2)]


@pytest.mark.spark
def test_examples_have_the_usual_keys(written: Path, imagenet: Path) -> None:
    examples = list(read_examples(str(written), is_training=False))
    assert len(examples) == 3
    data = (imagenet / "validation" / "ILSVRC2012_val_1.JPEG").read_bytes()
    assert examples[1] == {
        "image/channels": [3],
        "image/class/label": [2],
        "image/class/synset": [SYNSETS[1].encode()],
        "image/colorspace": [b"RGB"],
        "image/encoded": [data],
        "image/filename": [b"ILSVRC2012_val_1.JPEG"],
        "image/format": [b"JPEG"],
        "image/height": [8],
        "image/width": [6],
    }


@pytest.mark.spark
def test_each_training_image_comes_once_and_mixed(written: Path, imagenet: Path) -> None:
    examples = list(read_examples(str(written), is_training=True))
    found = [example["image/filename"][0].decode() for example in examples]
    files = sorted(file.name for file in (imagenet / "train").rglob("*.JPEG"))
    assert sorted(found) == files
    assert found != files


@pytest.mark.spark
def test_labels_count_from_one(written: Path) -> None:
    examples = list(read_examples(str(written), is_training=True))
    labels = {e["image/class/synset"][0].decode(): e["image/class/label"] for e in examples}
    assert labels == {SYNSETS[0]: [1], SYNSETS[1]: [2]}


@pytest.mark.spark
def test_png_and_cmyk_become_rgb_jpeg(written: Path) -> None:
    for example in read_examples(str(written), is_training=True):
        image = Image.open(io.BytesIO(example["image/encoded"][0]))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (6, 8))
        if example["image/filename"][0].endswith(b"764_4.JPEG"):
            red, green, blue = image.getpixel((3, 3))
            assert red > 150
            assert max(green, blue) < 100


@pytest.mark.spark
def test_tensorflow_reads_what_was_written(written: Path, tf: ModuleType) -> None:
    records = read_tfrecord("imagenet", str(written), is_training=False)
    parsed = [tf.train.Example.FromString(record.numpy()) for record in records]
    plain = list(read_examples(str(written), is_training=False))
    assert len(parsed) == len(plain)
    for example in parsed:
        feature = example.features.feature
        ours = next(
            e for e in plain if e["image/filename"] == feature["image/filename"].bytes_list.value
        )
        assert feature["image/class/label"].int64_list.value == ours["image/class/label"]
        assert feature["image/encoded"].bytes_list.value == ours["image/encoded"]
        assert sorted(feature) == sorted(ours)


@pytest.mark.spark
def test_training_order_is_drawn_anew_by_seed(written: Path, tf: ModuleType) -> None:
    def epochs(seed: int) -> list[list[bytes]]:
        read = partial(read_tfrecord, "imagenet", str(written / "train"), is_training=True)
        records = read(seed=seed)
        return [[record.numpy() for record in records] for _ in range(3)]

    first, again = epochs(1), epochs(1)
    assert first == again
    assert len({tuple(epoch) for epoch in first}) > 1
    assert len({tuple(sorted(epoch)) for epoch in first}) == 1
    assert len(first[0]) == 10


@pytest.mark.spark
def test_more_files_than_images(spark: SparkSession, imagenet: Path, tmp_path: Path) -> None:
    write_tfrecord(
        "imagenet",
        str(tmp_path),
        imagenet_path=str(imagenet),
        splits=["validation"],
        validation_files=5,
    )
    assert len(names(tmp_path / "validation")) == 5
    assert len(list(read_examples(str(tmp_path), is_training=False))) == 3


@pytest.mark.spark
def test_overwriting_leaves_no_old_files(
    spark: SparkSession, imagenet: Path, tmp_path: Path
) -> None:
    write = partial(write_tfrecord, "imagenet", str(tmp_path), imagenet_path=str(imagenet))
    write(splits=["validation"], validation_files=3)
    write(splits=["validation"], validation_files=2)
    assert names(tmp_path / "validation") == [f"validation-{n:05d}-of-00002" for n in range(2)]
    before = (tmp_path / "validation" / "validation-00000-of-00002").read_bytes()
    write(splits=["validation"], validation_files=1, write_mode="ignore")
    assert (tmp_path / "validation" / "validation-00000-of-00002").read_bytes() == before
    with pytest.raises(InputError, match="without record files"):
        write(splits=["validation"], write_mode="error")


@pytest.mark.spark
def test_bad_image_is_named_or_skipped(
    spark: SparkSession, imagenet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train" / SYNSETS[0]).mkdir(parents=True)
    (tmp_path / "train" / SYNSETS[0] / "bad.JPEG").write_bytes(b"no image")
    good = imagenet / "train" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG"
    (tmp_path / "train" / SYNSETS[0] / "good.JPEG").write_bytes(good.read_bytes())
    write = partial(write_tfrecord, "imagenet", str(tmp_path / "out"), imagenet_path=str(tmp_path))
    with pytest.raises(InputError, match=r"bad\.JPEG"):
        write(splits=["train"], train_files=2)
    with pytest.raises(InputError, match="one whole set"):
        next(read_examples(str(tmp_path / "out"), is_training=True))
    write(splits=["train"], train_files=2, on_error="skip")
    assert "skipped 1 bad images" in caplog.text
    assert len(list(read_examples(str(tmp_path / "out"), is_training=True))) == 1
    assert len(names(tmp_path / "out" / "train")) == 2


def test_file_appears_when_it_is_whole(imagenet: Path, tmp_path: Path) -> None:
    entries = [(f"validation/ILSVRC2012_val_{n}.JPEG", SYNSETS[n]) for n in range(3)]
    broken = [*entries, ("validation/gone.JPEG", SYNSETS[0])]
    labels = {synset: n for n, synset in enumerate(SYNSETS)}
    failed = _make_file(imagenet, tmp_path, labels, "fail", ("name", broken))
    assert isinstance(failed.error, InputError)
    assert names(tmp_path) == ["_failed"]
    assert _make_file(imagenet, tmp_path, labels, "fail", ("name", entries)) == (0, 0, None)
    (tmp_path / "_failed").unlink()
    assert _make_file(imagenet, tmp_path, labels, "fail", ("name", entries)).records == 3
    assert names(tmp_path) == ["name"]


def test_file_that_cannot_be_written(imagenet: Path, tmp_path: Path) -> None:
    entry = ("validation/ILSVRC2012_val_0.JPEG", SYNSETS[0])
    result = _make_file(imagenet, tmp_path, {SYNSETS[0]: 1}, "fail", ("x" * 300, [entry]))
    assert isinstance(result.error, ClusterError)
    assert names(tmp_path) == ["_failed"]


@pytest.mark.spark
def test_leftovers_of_a_killed_write_go(
    spark: SparkSession, imagenet: Path, tmp_path: Path
) -> None:
    (tmp_path / "validation").mkdir()
    for name in ("_failed", f".validation-00000-of-00001.{'a' * 32}", "notes.txt"):
        (tmp_path / "validation" / name).touch()
    given = {"splits": ["validation"], "validation_files": 1}
    write_tfrecord("imagenet", str(tmp_path), imagenet_path=str(imagenet), **given)
    assert names(tmp_path / "validation") == ["notes.txt", "validation-00000-of-00001"]


def test_output_that_is_a_file(imagenet: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="can be written"):
        write_tfrecord("imagenet", str(tmp_path / "out"), imagenet_path=str(imagenet))


@pytest.mark.parametrize("missing", ["train-00001-of-00002", None])
def test_unfinished_set_is_refused(tmp_path: Path, missing: str | None) -> None:
    (tmp_path / "train-00000-of-00002").touch()
    (tmp_path / ("train-00000-of-00003" if missing is None else "train-00001-of-00004")).touch()
    with pytest.raises(InputError, match="one whole set"):
        read_examples(str(tmp_path), is_training=True)


def test_missing_keywords_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="imagenet_path"):
        write_tfrecord("imagenet", str(tmp_path))
    with pytest.raises(ContractError, match="imagenet_path"):
        write_tfrecord("imagenet", str(tmp_path), imagenet_path="")
    with pytest.raises(AssertionError, match="is_training"):
        read_tfrecord("imagenet", str(tmp_path))


@pytest.mark.parametrize("call", [write_tfrecord, read_tfrecord])
def test_format_that_is_unknown(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="'coco'"):
        call("coco", "out")


@pytest.mark.parametrize(
    "given",
    [
        {"train_files": 0},
        {"train_files": 10**5},
        {"splits": ["test"]},
        {"write_mode": "append"},
        {"on_error": "quarantine"},
        {"block_size": 3},
    ],
)
def test_keywords_that_cannot_be(imagenet: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        write_tfrecord("imagenet", str(tmp_path), imagenet_path=str(imagenet), **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_training", ["False", 0, None])
def test_is_training_is_true_or_false(tmp_path: Path, is_training: Any) -> None:
    with pytest.raises(InputError, match="True or False"):
        read_examples(str(tmp_path), is_training=is_training)


def test_no_split_at_all(imagenet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        write_tfrecord("imagenet", str(tmp_path), imagenet_path=str(imagenet), splits=())
    assert not list(tmp_path.iterdir())


def test_deep_png_keeps_its_upper_bits(tmp_path: Path) -> None:
    Image.new("I;16", (8, 8), 0x8000).save(tmp_path / "a.png")
    data, width, height = _as_jpeg(tmp_path / "a.png")
    assert (width, height) == (8, 8)
    assert Image.open(io.BytesIO(data)).getpixel((4, 4)) == (128, 128, 128)
