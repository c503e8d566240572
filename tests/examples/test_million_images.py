"""The example runs as a program of its own, on few images."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "million_images.py"
IMAGES, BAD = 400, 4

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def said(run_program: Run, out: Path) -> str:
    """What the program prints, run once."""
    options = ["--images", str(IMAGES), "--epochs", "2", "--out", str(out)]
    run = run_program(EXAMPLE, *options, timeout_s=500)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_damaged_files_are_in_quarantine_and_the_others_in_the_dataset(said: str) -> None:
    assert f"{IMAGES - BAD} images; {BAD} of {BAD} bad files in quarantine" in said


def test_each_kind_of_damage_has_its_reason(said: str) -> None:
    reasons = re.search(r"^Reasons +(.*)$", said, re.MULTILINE)
    assert reasons is not None, said
    assert reasons[1].split("; ") == ["damaged or", "no image:", "zero bytes"]


def test_every_reader_reads_every_image(said: str) -> None:
    counts = re.findall(r"(DataLoader|Dataset).*? +(\d+) +[\d.]+ +[\d,]+$", said, re.MULTILINE)
    assert len(counts) >= 2
    assert {int(count) for _, count in counts} == {IMAGES - BAD}


def test_all_pictures_are_drawn(said: str, out: Path) -> None:
    assert "images.png, augmented.png, boxes.png, moved.png" in said
    for name in ("images", "augmented", "boxes", "moved"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 1000
            assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 100


def test_it_learns(said: str) -> None:
    losses = re.search(r"^Train +loss ([\d.]+) to ([\d.]+)$", said, re.MULTILINE)
    assert losses is not None, said
    assert float(losses[2]) < float(losses[1])


def test_the_images_held_out_are_predicted(said: str, out: Path) -> None:
    found = re.search(r"accuracy [\d.]+ on (\d+) held out", said)
    assert found is not None, said
    assert pq.read_table(out / "read", columns=["image_id"]).num_rows == int(found[1])
