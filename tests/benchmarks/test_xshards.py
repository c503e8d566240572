"""The benchmark of CSV files and shards keeps working; its figures are nobody's gate."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "xshards.py"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def numbers_of(run_program: Run, file: Path, *options: object) -> dict[str, Any]:
    """What the script finds."""
    done = run_program(SCRIPT, *options, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_small_run(run_program: Run, tmp_path: Path) -> None:
    size = ("--scale", 0.002, "--memory", "1g", "--rounds", 1)
    place = tmp_path / "files"
    place.mkdir()
    options = ("--only", "ours-spark", "--folder", place)
    (found,) = numbers_of(run_program, tmp_path / "numbers.json", *size, *options)["runs"]
    assert list(found["stages"]) == ["read", "transform", "train"]
    assert not list(place.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def numbers(run_program: Run, place: Path) -> dict[str, Any]:
    (place / "files").mkdir()
    size = ("--scale", 0.01, "--memory", "1g", "--rounds", 1, "--folder", place / "files")
    return numbers_of(run_program, place / "numbers.json", *size, "--only", "ours-spark,limit")


@pytest.mark.long
def test_every_stage_is_timed(numbers: dict[str, Any]) -> None:
    assert len(numbers["runs"]) == 2
    for one in numbers["runs"]:
        assert list(one["stages"]) == ["read", "transform", "train"]
        assert one["seconds"] == pytest.approx(sum(one["stages"].values()))


@pytest.mark.long
def test_everyone_trains_on_the_same_rows(numbers: dict[str, Any]) -> None:
    assert len({one["rows"] for one in numbers["runs"]}) == 1
    assert 0 < numbers["runs"][0]["rows"] < numbers["rows"]


@pytest.mark.long
def test_everyone_learns(numbers: dict[str, Any]) -> None:
    losses = [one["loss"] for one in numbers["runs"]]
    assert max(losses) < 1.5 * min(losses)


@pytest.mark.long
def test_workers_and_driver_have_peaks(numbers: dict[str, Any]) -> None:
    found = numbers["runs"][0]["processes"]
    assert {"driver", "pyspark.daemon, forked"} <= {what for what, _, _ in found}
    assert all(rss >= anonymous for _, rss, anonymous in found)


@pytest.mark.long
def test_claim_is_about_the_largest_process(numbers: dict[str, Any]) -> None:
    (claim,) = numbers["claims"]
    assert claim["measured"] == max(rss for _, rss, _ in numbers["runs"][0]["processes"])


@pytest.mark.long
def test_csv_files_are_deleted(numbers: dict[str, Any], place: Path) -> None:
    assert numbers
    assert not list((place / "files").iterdir())


def test_gigabytes_ask_for_space(run_program: Run, place: Path) -> None:
    done = run_program(SCRIPT, "--gigabytes", "1e6", "--folder", str(place))
    assert done.returncode == 1
    assert "GB needed" in done.stderr


def test_unknown_contender_is_refused(run_program: Run) -> None:
    done = run_program(SCRIPT, "--only", "limit,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
