"""The benchmark of first results keeps working; its figures are nobody's gate."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_result.py"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_small_run(
    run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file, only = tmp_path / "numbers.json", ("--only", "ours,loaded,torch")
    size = ("--rows", 300, "--columns", 4, "--rounds", 1, "--memory", "1g")
    done = run_program(SCRIPT, *size, *only, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(file.read_text())["rows"].values()
    assert found.keys() == {"ours", "loaded", "torch"}
    assert all(seconds > 0 for (run,) in found.values() for seconds in run.values())
