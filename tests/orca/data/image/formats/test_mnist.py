import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.image import decode_ndarray, read_parquet, write_mnist, write_parquet

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 5, 4), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.uint8)


@pytest.fixture
def idx(tmp_path: Path) -> tuple[str, str]:
    images, labels = tmp_path / "images idx3", tmp_path / "labels idx1"
    images.write_bytes(struct.pack(">4I", 2051, *IMAGES.shape) + IMAGES.tobytes())
    labels.write_bytes(struct.pack(">2I", 2049, len(LABELS)) + LABELS.tobytes())
    return str(images), str(labels)


@pytest.mark.spark
def test_every_image_and_label(spark: SparkSession, idx: tuple[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    write_parquet("mnist", out, image_file=idx[0], label_file=idx[1], block_size=3)
    batches = list(read_parquet("dataloader", out, batch_size=4))
    images = np.concatenate([batch["image"].numpy() for batch in batches])
    labels = np.concatenate([batch["label"].numpy() for batch in batches])
    np.testing.assert_array_equal(images, IMAGES[..., np.newaxis], strict=True)
    np.testing.assert_array_equal(labels, LABELS, strict=True)


@pytest.mark.spark
def test_frame_holds_archives(spark: SparkSession, idx: tuple[str, str], tmp_path: Path) -> None:
    write_mnist(*idx, str(tmp_path / "out"))
    row = read_parquet("spark", str(tmp_path / "out")).first()
    assert decode_ndarray(bytes(row.image)).shape == (5, 4, 1)
    assert decode_ndarray(bytes(row.label)) == 0


def test_files_in_each_others_place(idx: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="magic number 2051"):
        write_mnist(idx[1], idx[0], str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "bytes in"),
        (lambda data: data + b"1", "bytes in"),
        (lambda data: data[:6], "magic number 2049"),
        (lambda data: b"", "an empty file"),
        (lambda data: b"\x1f\x8b" + data, "gunzip"),
        (lambda data: data[:4] + struct.pack(">I", 9) + data[8:-1], "a label for each of the 10"),
    ],
)
def test_damaged_labels(
    idx: tuple[str, str], tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    labels = Path(idx[1])
    labels.write_bytes(change(labels.read_bytes()))
    with pytest.raises(InputError, match=said):
        write_mnist(*idx, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_missing_file(idx: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an IDX file"):
        write_mnist(str(tmp_path / "gone"), idx[1], str(tmp_path / "out"))


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(struct.pack(">4I", 2051, 0, 5, 4))
    (tmp_path / "l").write_bytes(struct.pack(">2I", 2049, 0))
    with pytest.raises(InputError, match="at least one record"):
        write_mnist(str(tmp_path / "i"), str(tmp_path / "l"), str(tmp_path / "out"))


@pytest.mark.spark
def test_files_on_any_file_system(
    spark: SparkSession, idx: tuple[str, str], tmp_path: Path
) -> None:
    there = [f"local://{file}" for file in idx]
    write_mnist(*there, f"local://{tmp_path}/there", block_size=4)
    write_mnist(*idx, str(tmp_path / "here"), block_size=4)
    for name in ("chunk=2/part-00000.parquet", "_orca_metadata"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
