"""The benchmark of frames and torch keeps working; its figures are nobody's gate."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "frame_to_torch.py"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def figures(
    run_program: Run, file: Path, *options: object, timeout_s: float = 800
) -> dict[str, Any]:
    """What the script finds."""
    done = run_program(SCRIPT, *options, "--json", file, timeout_s=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_small_run(run_program: Run, tmp_path: Path) -> None:
    size = ("--rows", 2000, "--batch", 256, "--epochs", 2, "--memory", "1g")
    found = figures(run_program, tmp_path / "numbers.json", *size, "--only", "ours")
    assert {run["name"] for run in found["runs"]} == {"ours, first fit", "ours, second fit"}
    assert all(0 < run["first_batch_s"] < run["seconds"] for run in found["runs"])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_frame_larger_than_memory(run_program: Run, tmp_path: Path) -> None:
    size = ("--rows", 20_000_000, "--batch", 8192, "--epochs", 1, "--memory", "1g")
    file = tmp_path / "numbers.json"
    found = figures(run_program, file, *size, "--only", "ours", timeout_s=3500)
    (memory,) = found["claims"]
    assert memory["holds"], memory


@pytest.fixture(scope="module")
def numbers(run_program: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    size = ("--rows", 20000, "--batch", 1024, "--epochs", 2, "--memory", "1g")
    return figures(run_program, file, *size, "--only", "ours,limit,export")


@pytest.mark.long
def test_every_run_has_rates(numbers: dict[str, Any]) -> None:
    rates = {run["name"]: (run["rows_per_s"], run["steady_rows_per_s"]) for run in numbers["runs"]}
    assert {"ours, first fit", "ours, second fit", "limit, sliced, 1 thread"} <= rates.keys()
    assert all(in_all > 0 and steady > 0 for in_all, steady in rates.values())


@pytest.mark.long
def test_ours_and_the_limit_learn_the_same(numbers: dict[str, Any]) -> None:
    losses = [run["loss"] for run in numbers["runs"]]
    assert max(losses) < 1.1 * min(losses)


@pytest.mark.long
def test_first_batch_comes_inside_the_fit(numbers: dict[str, Any]) -> None:
    ours = [run for run in numbers["runs"] if run["name"].startswith("ours")]
    assert all(0 < run["first_batch_s"] < run["seconds"] for run in ours)


@pytest.mark.long
def test_claims_follow_from_the_figures(numbers: dict[str, Any]) -> None:
    ingest, memory = numbers["claims"]
    figures = numbers["figures"]
    assert ingest["measured"] == figures["ingest_rows_per_s"] / figures["export_rows_per_s"]
    assert memory["measured"] > 0
    assert memory["holds"] == (memory["measured"] <= memory["bound"])


def test_unknown_contender_is_refused(run_program: Run) -> None:
    done = run_program(SCRIPT, "--only", "ours,theirs")
    assert done.returncode == 2
    assert "theirs is none of" in done.stderr
