"""The example runs as a program of its own, on images that the test draws.

`make demo` runs it on its own images, so this is for `make test-long`.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"
CLASSES = ["blue", "green", "red & <warm>"]
EPOCHS = 4

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of each class, of many sizes: noise with one strong colour."""
    root = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for channel, name in zip((2, 1, 0), CLASSES, strict=True):
        (root / name).mkdir()
        for number in range(40):
            pixels = draw.integers(0, 120, (20 + number % 7, 30 + number % 5, 3), dtype=np.uint8)
            pixels[:, :, channel] += 130
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(run_program: Run, folder: Path) -> subprocess.CompletedProcess[str]:
    """The program, run once on these images."""
    options = ["--data", folder, "--out", folder / "out", "--epochs", EPOCHS, "--batch-size", 16]
    return run_program(EXAMPLE, *options, timeout_s=500)


@pytest.fixture(scope="module")
def report(run: subprocess.CompletedProcess[str], folder: Path) -> str:
    assert run.returncode == 0, run.stderr
    return (folder / "out" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_reads_what_it_was_not_trained_on(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr
    found = re.search(r"^Held-out accuracy +([\d.]+)", run.stdout, re.MULTILINE)
    assert found is not None, run.stdout
    assert float(found[1]) > 0.9


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_fresh_process_predicts_the_same(run: subprocess.CompletedProcess[str]) -> None:
    assert re.search(r"^Reload +a fresh process reads all \d+ held-out", run.stdout, re.MULTILINE)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_spark_stays_silent(run: subprocess.CompletedProcess[str]) -> None:
    # Ranks that come late are told, on a machine that does much else; and each epoch.
    expected = ("waiting for task", "Python is starting", "epoch ")
    lines = [line for line in run.stderr.splitlines() if not line.startswith(expected)]
    assert not lines


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_report_needs_no_other_file(report: str) -> None:
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|url\((?!#)|@import", report)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_report_shows_all_parts(report: str) -> None:
    titles = ["Training", "How good it is", "Read wrongly, or almost", "The images"]
    titles += ["The whole program", "Where the time went", "What was run"]
    assert re.findall(r"<h2>([^<]+)</h2>", report) == titles
    assert "ConfusionMatrix" in report
    assert "rank 1" in report


@pytest.mark.long
@pytest.mark.timeout(600)
def test_names_of_folders_are_text_in_the_report(report: str) -> None:
    assert "red &amp; &lt;warm&gt;" in report
    assert "<warm>" not in report
