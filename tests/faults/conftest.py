"""Runs the trials of faults once for all tests: those of one kind of Spark in one program."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"
TRIALS = 2

Facts = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_faults() -> Run:
    """Run the script with some options."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if "SPARK" not in name or name.endswith("_OPTS")
        }
        return subprocess.run(
            [sys.executable, str(SCRIPT), *options],
            capture_output=True, text=True, timeout=1100, check=False, env=environment,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def trials_of(
    run_faults: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Facts]]:
    """The trials of some kinds, which share a program; made when they are first asked for."""
    made: dict[str, list[Facts]] = {}

    def trials(kinds: str) -> list[Facts]:
        if kinds not in made:
            file = tmp_path_factory.mktemp("faults") / "numbers.json"
            done = run_faults("--trials", str(TRIALS), "--only", kinds, "--json", str(file))
            assert file.exists(), done.stdout + done.stderr
            made[kinds] = json.loads(file.read_text())["trials"]
        return made[kinds]

    return trials
