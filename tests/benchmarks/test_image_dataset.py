"""The benchmark of image datasets keeps working; its figures are nobody's gate."""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "image_dataset.py"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def numbers_of(run_program: Run, file: Path, *options: object) -> dict[str, Any]:
    """What the script finds."""
    done = run_program(SCRIPT, *options, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_small_run(run_program: Run, tmp_path: Path) -> None:
    size = ("--scale", 0.001, "--pixels", 32, "--warm-only", "--rounds", 1, "--parts", "write")
    place = tmp_path / "files"
    place.mkdir()
    options = ("--only", "ours", "--folder", place)
    found = numbers_of(run_program, tmp_path / "numbers.json", *size, *options)
    assert {f["name"] for f in found["figures"]} == {"ours", "start of Spark"}
    assert not list(place.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def numbers(run_program: Run, place: Path) -> dict[str, Any]:
    (place / "files").mkdir()
    size = ("--scale", 0.001, "--pixels", 32, "--rounds", 1, "--warm-only")
    options = ("--only", "ours,limit,scan", "--folder", place / "files")
    return numbers_of(run_program, place / "numbers.json", *size, *options)


def figures(numbers: dict[str, Any], part: str, name: str) -> list[dict[str, Any]]:
    return [f for f in numbers["figures"] if (f["part"], f["name"]) == (part, name)]


@pytest.mark.long
def test_written_bytes_are_those_on_disk(numbers: dict[str, Any]) -> None:
    first, warm = figures(numbers, "write", "ours")
    assert (first["how"], warm["how"]) == ("first of a session, warm", "warm")
    assert 0.1 < first["mib"] == warm["mib"] < 1


@pytest.mark.long
def test_start_of_spark_is_apart(numbers: dict[str, Any]) -> None:
    (start,) = figures(numbers, "write", "start of Spark")
    assert start["seconds"] > 0
    assert start["rate"] == 0


@pytest.mark.long
def test_every_number_of_workers_is_read_with_in_both_orders(numbers: dict[str, Any]) -> None:
    found = {f["how"] for f in figures(numbers, "read", "ours")}
    orders = ("in order", "shuffled")
    assert found == {
        f"{workers} workers, {order}, warm" for workers in range(3) for order in orders
    }


@pytest.mark.long
def test_limit_is_there_for_one_process_and_two(numbers: dict[str, Any]) -> None:
    assert [f["processes"] for f in figures(numbers, "read", "limit")] == [1, 2]


@pytest.mark.long
def test_lookups_have_a_latency(numbers: dict[str, Any]) -> None:
    single = next(f for f in figures(numbers, "access", "ours") if "one at a time" in f["how"])
    median_ms, late_ms = single["latency_ms"]
    assert 0 < median_ms <= late_ms


@pytest.mark.long
def test_claims_follow_from_the_figures(numbers: dict[str, Any]) -> None:
    texts = [claim["text"] for claim in numbers["claims"]]
    assert len(texts) == 6
    ours = next(f for f in figures(numbers, "access", "ours") if "one call" in f["how"])
    (scan,) = figures(numbers, "access", "Parquet scan (filter)")
    claim = next(c for c in numbers["claims"] if "(filter)" in c["text"])
    assert claim["measured"] == ours["rate"] / scan["rate"]


@pytest.mark.long
def test_datasets_are_deleted(numbers: dict[str, Any], place: Path) -> None:
    assert numbers
    assert not list((place / "files").iterdir())


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("lance") is not None, reason="Lance is installed")
def test_missing_peer_is_named(run_program: Run) -> None:
    size = ("--scale", "0.001", "--pixels", "32", "--warm-only", "--parts", "write")
    done = run_program(SCRIPT, *size, "--only", "lance")
    assert done.returncode == 0, done.stderr
    assert "write-lance: not installed" in done.stdout


def test_unknown_contender_is_refused(run_program: Run) -> None:
    done = run_program(SCRIPT, "--only", "ours,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
