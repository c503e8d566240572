"""The example runs as a program of its own: on few pictures, and where they are on real ones."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("tensorflow")

EXAMPLE = Path(__file__).parents[2] / "examples" / "yolov3" / "train.py"
DATA = Path(__file__).parents[3] / "shared" / "data"
VOC, CELLS = DATA / "voc" / "VOCdevkit", DATA / "photos" / "bccd"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def output(run_program: Run, *options: object) -> str:
    run = run_program(EXAMPLE, *options, timeout_s=850)
    assert run.returncode == 0, run.stderr
    return run.stdout


def precision(said: str) -> float:
    found = re.search(r"^Measure +mAP ([\d.]+) \(all-point, IoU 0.5, ", said, re.MULTILINE)
    assert found is not None, said
    return float(found[1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yolov3")


@pytest.fixture(scope="module")
def said(run_program: Run, out: Path) -> str:
    """What the program prints about pictures that it draws, run once."""
    return output(run_program, "--out", out)


@pytest.mark.long
def test_shapes_that_were_held_out_are_found(said: str) -> None:
    assert precision(said) >= 0.5


@pytest.mark.long
def test_in_under_five_minutes(said: str) -> None:
    crowd = max(1.0, max(os.getloadavg()) / (os.cpu_count() or 1))  # programs that want a core
    last = said.strip().splitlines()[-1]
    assert float(last.split()[-2]) < 300 * crowd


@pytest.mark.long
def test_report_shows_pictures(said: str, out: Path) -> None:
    page = (out / "report.html").read_text()
    assert "Found, and there" in page
    assert "data:image/png;base64," in page
    with Image.open(out / "boxes.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 1000


@pytest.mark.skipif(not VOC.is_dir(), reason="the ten real images are not here")
def test_one_pass_over_real_images(run_program: Run, tmp_path: Path) -> None:
    options = ["--data", VOC, "--splits", "trainval", "test", "--epochs", 1, "--out", tmp_path]
    said = output(run_program, *options, "--batch-size", 4)
    assert re.search(r"boxes on 10 images", said)
    assert 0 <= precision(said) <= 1


@pytest.mark.long
@pytest.mark.skipif(not CELLS.is_dir(), reason="the photographs of cells are not here")
def test_cells_under_the_microscope(run_program: Run, tmp_path: Path) -> None:
    folder = tmp_path / "VOC2007"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations").symlink_to(CELLS / "annotations")
    (folder / "JPEGImages").symlink_to(CELLS / "images")
    names = sorted(file.stem for file in (CELLS / "annotations").glob("*.xml"))
    for split, chosen in (
        ("train", [n for k, n in enumerate(names) if k % 5]),
        ("val", names[::5]),
    ):
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(chosen))
    classes = ["--classes", "RBC", "WBC", "Platelets"]
    options = ["--size", 224, "--batch-size", 8, "--epochs", 60, "--out", tmp_path / "out"]
    assert precision(output(run_program, "--data", tmp_path, *classes, *options)) > 0.4
