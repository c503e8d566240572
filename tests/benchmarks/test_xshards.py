"""The benchmark of CSV files and shards keeps working; its figures are nobody's gate."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "xshards.py"

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
    options = ("--scale", "0.01", "--memory", "1g", "--rounds", "1", "--folder", f"{place}/files")
    file = place / "numbers.json"
    done = run(*options, "--only", "ours-spark,limit", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_every_stage_is_timed(numbers: dict[str, Any]) -> None:
    assert len(numbers["runs"]) == 2
    for one in numbers["runs"]:
        assert list(one["stages"]) == ["read", "transform", "train"]
        assert one["seconds"] == pytest.approx(sum(one["stages"].values()))


def test_everyone_trains_on_the_same_rows(numbers: dict[str, Any]) -> None:
    assert len({one["rows"] for one in numbers["runs"]}) == 1
    assert 0 < numbers["runs"][0]["rows"] < numbers["rows"]


def test_everyone_learns(numbers: dict[str, Any]) -> None:
    losses = [one["loss"] for one in numbers["runs"]]
    assert max(losses) < 1.5 * min(losses)


def test_workers_and_driver_have_peaks(numbers: dict[str, Any]) -> None:
    found = numbers["runs"][0]["processes"]
    assert {"driver", "pyspark.daemon, forked"} <= {what for what, _, _ in found}
    assert all(rss >= anonymous for _, rss, anonymous in found)


def test_claim_is_about_the_largest_process(numbers: dict[str, Any]) -> None:
    (claim,) = numbers["claims"]
    assert claim["measured"] == max(rss for _, rss, _ in numbers["runs"][0]["processes"])


def test_csv_files_are_deleted(numbers: dict[str, Any], place: Path) -> None:
    assert numbers
    assert not list((place / "files").iterdir())


def test_gigabytes_ask_for_space(place: Path) -> None:
    done = run("--gigabytes", "1e6", "--folder", str(place))
    assert done.returncode == 1
    assert "GB needed" in done.stderr


def test_unknown_contender_is_refused() -> None:
    done = run("--only", "limit,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
