"""The benchmark of image datasets keeps working; its figures are nobody's gate."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "image_dataset.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if "SPARK" not in name or name.endswith("_OPTS")
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def numbers(place: Path) -> dict[str, Any]:
    (place / "files").mkdir()
    size = ("--scale", "0.001", "--pixels", "32", "--rounds", "1", "--warm-only")
    file = place / "numbers.json"
    done = run(
        *size, "--only", "ours,limit,scan", "--folder", f"{place}/files", "--json", str(file)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def figures(numbers: dict[str, Any], part: str, name: str) -> list[dict[str, Any]]:
    return [f for f in numbers["figures"] if (f["part"], f["name"]) == (part, name)]


def test_written_bytes_are_those_on_disk(numbers: dict[str, Any]) -> None:
    first, warm = figures(numbers, "write", "ours")
    assert (first["how"], warm["how"]) == ("first of a session, warm", "warm")
    assert 0.1 < first["mib"] == warm["mib"] < 1


def test_start_of_spark_is_apart(numbers: dict[str, Any]) -> None:
    (start,) = figures(numbers, "write", "start of Spark")
    assert start["seconds"] > 0
    assert start["rate"] == 0


def test_every_number_of_workers_is_read_with_in_both_orders(numbers: dict[str, Any]) -> None:
    found = {f["how"] for f in figures(numbers, "read", "ours")}
    orders = ("in order", "shuffled")
    assert found == {
        f"{workers} workers, {order}, warm" for workers in range(3) for order in orders
    }


def test_limit_is_there_for_one_process_and_two(numbers: dict[str, Any]) -> None:
    assert [f["processes"] for f in figures(numbers, "read", "limit")] == [1, 2]


def test_lookups_have_a_latency(numbers: dict[str, Any]) -> None:
    single = next(f for f in figures(numbers, "access", "ours") if "one at a time" in f["how"])
    median_ms, late_ms = single["latency_ms"]
    assert 0 < median_ms <= late_ms


def test_claims_follow_from_the_figures(numbers: dict[str, Any]) -> None:
    texts = [claim["text"] for claim in numbers["claims"]]
    assert len(texts) == 6
    ours = next(f for f in figures(numbers, "access", "ours") if "one call" in f["how"])
    (scan,) = figures(numbers, "access", "Parquet scan (filter)")
    claim = next(c for c in numbers["claims"] if "(filter)" in c["text"])
    assert claim["measured"] == ours["rate"] / scan["rate"]


def test_datasets_are_deleted(numbers: dict[str, Any], place: Path) -> None:
    assert numbers
    assert not list((place / "files").iterdir())


@pytest.mark.skipif(importlib.util.find_spec("lance") is not None, reason="Lance is installed")
def test_missing_peer_is_named() -> None:
    size = ("--scale", "0.001", "--pixels", "32", "--warm-only", "--parts", "write")
    done = run(*size, "--only", "lance")
    assert done.returncode == 0, done.stderr
    assert "write-lance: not installed" in done.stdout


def test_unknown_contender_is_refused() -> None:
    done = run("--only", "ours,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
