from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession

from zoo.errors import InputError
from zoo.orca.data.image import read_parquet, write_parquet
from zoo.orca.data.image.formats.imagenet import list_split, number_synsets, write_imagenet

SYNSETS = ("n01440764", "n02102040", "n09999999")


@pytest.fixture
def imagenet(tmp_path: Path, make_picture: Callable[..., bytes]) -> Path:
    """Two classes in training, three in validation, two and one images each."""
    root = tmp_path / "imagenet"
    for synset in SYNSETS[:2]:
        (root / "train" / synset).mkdir(parents=True)
        for number in range(2):
            data = make_picture(8, 6, seed=number, kind="JPEG")
            (root / "train" / synset / f"{synset}_{number}.JPEG").write_bytes(data)
    (root / "validation").mkdir()
    for number in range(3):
        data = make_picture(8, 6, seed=number, kind="JPEG")
        (root / "validation" / f"ILSVRC2012_val_{number}.JPEG").write_bytes(data)
    (root / "synset_labels.txt").write_text("\n".join(SYNSETS[::-1]) + "\n")
    return root


def rows(path: Path) -> list[Row]:
    return read_parquet("spark", str(path)).collect()


@pytest.mark.spark
def test_training_images_come_with_their_synset(spark: SparkSession, imagenet: Path) -> None:
    out = imagenet / "out"
    write_parquet("imagenet", str(out), imagenet_path=str(imagenet), shuffle=False, block_size=3)
    found = rows(out)
    assert [row.label_str for row in found] == [SYNSETS[0]] * 2 + [SYNSETS[1]] * 2
    assert [row.label for row in found] == [0, 0, 1, 1]
    for row in found:
        assert bytes(row.image) == Path(row.image_id).read_bytes()
        assert Path(row.image_id).parent.name == row.label_str


@pytest.mark.spark
def test_validation_images_are_labelled_by_the_file(spark: SparkSession, imagenet: Path) -> None:
    write_imagenet(str(imagenet), str(imagenet / "out"), split="validation", shuffle=False)
    found = [(Path(row.image_id).name, row.label_str, row.label) for row in rows(imagenet / "out")]
    names = [f"ILSVRC2012_val_{number}.JPEG" for number in range(3)]
    assert found == list(zip(names, SYNSETS[::-1], [2, 1, 0], strict=True))


@pytest.mark.spark
def test_shuffle_follows_its_seed(spark: SparkSession, imagenet: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 3)):
        write_imagenet(str(imagenet), str(imagenet / name), seed=seed)
    first, again, other = ([row.image_id for row in rows(imagenet / name)] for name in "abc")
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


@pytest.mark.spark
def test_label_map_gives_other_numbers(spark: SparkSession, imagenet: Path) -> None:
    numbers = {SYNSETS[0]: 10, SYNSETS[1]: 20}
    write_imagenet(str(imagenet), str(imagenet / "out"), label_map=numbers)
    assert {row.label_str: row.label for row in rows(imagenet / "out")} == numbers


def test_label_map_must_have_every_synset(imagenet: Path) -> None:
    with pytest.raises(InputError, match=SYNSETS[1]):
        write_imagenet(str(imagenet), str(imagenet / "out"), label_map={SYNSETS[0]: 1})


def test_numbers_are_those_of_both_splits(imagenet: Path) -> None:
    assert number_synsets(imagenet) == {synset: n for n, synset in enumerate(SYNSETS)}


def test_other_files_are_left_out_and_counted(
    imagenet: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (imagenet / "train" / SYNSETS[0] / ".hidden.JPEG").touch()
    (imagenet / "train" / SYNSETS[0] / "list.txt").touch()
    (imagenet / "train" / ".cache").mkdir()
    assert len(list_split(imagenet, "train")) == 4
    assert "skipped 2 entries" in caplog.text


def test_labels_and_images_that_differ_in_number(imagenet: Path) -> None:
    (imagenet / "validation" / "ILSVRC2012_val_1.JPEG").unlink()
    with pytest.raises(InputError, match=r"(?s)each of the 2 .*3 lines in .*synset_labels"):
        list_split(imagenet, "validation")


def test_number_in_a_name_finds_its_line(imagenet: Path) -> None:
    folder = imagenet / "validation"
    for file, number in zip(sorted(folder.iterdir()), (1, 3, 4), strict=True):
        file.rename(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    (imagenet / "synset_labels.txt").write_text("a\nb\nc\nd\n")
    assert [entry.synset for entry in list_split(imagenet, "validation")] == ["a", "c", "d"]


def test_missing_labels(imagenet: Path) -> None:
    (imagenet / "synset_labels.txt").unlink()
    with pytest.raises(InputError, match="synset_labels"):
        list_split(imagenet, "validation")


@pytest.mark.parametrize(("split", "message"), [("test", "a split of"), ("train", "train")])
def test_splits_that_are_not_there(tmp_path: Path, split: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_split(tmp_path, split)


def test_folder_without_images(imagenet: Path) -> None:
    for file in (imagenet / "train").rglob("*.JPEG"):
        file.unlink()
    with pytest.raises(InputError, match="images"):
        list_split(imagenet, "train")
