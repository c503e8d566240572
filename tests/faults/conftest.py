"""Runs a trial of each kind of fault, once for all tests; those of one Spark share a program."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"

Facts = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_faults(run_program: Run) -> Run:
    """Run the script with some options."""

    def run(*options: object, timeout_s: float = 1100) -> subprocess.CompletedProcess[str]:
        return run_program(SCRIPT, *options, timeout_s=timeout_s)

    return run


@pytest.fixture(scope="session")
def trials_of(
    run_faults: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Facts]]:
    """The trials of some kinds, which share a program; made when they are first asked for.

    Each day has its own seed, which stands in the facts of a trial that fails.
    """
    made: dict[str, list[Facts]] = {}
    seed = int(time.time() // (24 * 3600))

    def trials(kinds: str) -> list[Facts]:
        if kinds not in made:
            file = tmp_path_factory.mktemp("faults") / "numbers.json"
            done = run_faults("--trials", 1, "--seed", seed, "--only", kinds, "--json", file)
            assert file.exists(), done.stdout + done.stderr
            made[kinds] = json.loads(file.read_text())["trials"]
        return made[kinds]

    return trials


@pytest.fixture
def trial_of(
    request: pytest.FixtureRequest, trials_of: Callable[[str], list[Facts]]
) -> Callable[[str], Facts]:
    """The trial of a kind, if it can be made here; a module may name kinds that go together."""

    def one(kind: str) -> Facts:
        together = getattr(request.module, "TOGETHER", kind)
        (trial,) = (t for t in trials_of(together) if t["kind"] == kind)
        if trial["skipped"]:
            pytest.skip(trial["skipped"])
        return trial

    return one


@pytest.fixture
def ended_well(trial_of: Callable[[str], Facts]) -> Callable[[str], Facts]:
    """The trial of a kind, whose fit has ended, exactly, and of which nothing is left."""

    def check(kind: str) -> Facts:
        trial = trial_of(kind)
        assert trial["ended"], trial
        assert not trial["compared"] or trial["difference"] <= 1e-9, trial
        assert trial["told"] or trial["rows_once"], trial
        assert not trial["left"], trial
        return trial

    return check
