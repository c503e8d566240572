"""The benchmark of frames and torch keeps working; its figures are nobody's gate."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "frame_to_torch.py"

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
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    size = ("--rows", "20000", "--batch", "1024", "--epochs", "2", "--memory", "1g")
    done = run(*size, "--only", "ours,limit,export", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_every_run_has_rates(numbers: dict[str, Any]) -> None:
    rates = {run["name"]: (run["rows_per_s"], run["steady_rows_per_s"]) for run in numbers["runs"]}
    assert {"ours, first fit", "ours, second fit", "limit, sliced, 1 thread"} <= rates.keys()
    assert all(in_all > 0 and steady > 0 for in_all, steady in rates.values())


def test_ours_and_the_limit_learn_the_same(numbers: dict[str, Any]) -> None:
    losses = [run["loss"] for run in numbers["runs"]]
    assert max(losses) < 1.1 * min(losses)


def test_first_batch_comes_inside_the_fit(numbers: dict[str, Any]) -> None:
    ours = [run for run in numbers["runs"] if run["name"].startswith("ours")]
    assert all(0 < run["first_batch_s"] < run["seconds"] for run in ours)


def test_claims_follow_from_the_figures(numbers: dict[str, Any]) -> None:
    ingest, memory = numbers["claims"]
    figures = numbers["figures"]
    assert ingest["measured"] == figures["ingest_rows_per_s"] / figures["export_rows_per_s"]
    assert memory["measured"] > 0
    assert memory["holds"] == (memory["measured"] <= memory["bound"])


def test_unknown_contender_is_refused() -> None:
    done = run("--only", "ours,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
