"""What the script makes of trials: lines, claims, failures, the page. No Spark."""

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("trials.report")


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("trials.marks")


def trial(report: ModuleType, **facts: Any) -> Any:
    good = {"ended": True, "difference": 1e-15, "rows_once": True, "losses": 1, "recovery_s": 2.0}
    return report.Trial(**{"kind": "killed", "seed": 0, **good, **facts})


def lines(marks: ModuleType, path: Path, *texts: str) -> Any:
    path.write_text("".join(f"{text:<59}\n" for text in texts))
    return marks.Marks(path)


ROUNDS = (
    "begin 1.0 0 0 2 10",
    "begin 1.1 0 1 2 11",
    "step 2.0 1 0 2 10",
    "step 3.0 2 0 2 10",
    "begin 5.0 1 0 1 10",
    "step 6.0 2 0 1 10",
)


def test_extra_steps_are_those_taken_twice(marks: ModuleType, tmp_path: Path) -> None:
    assert lines(marks, tmp_path / "marks", *ROUNDS).extra_steps() == 1


def test_recovery_ends_with_a_step_of_the_next_round(marks: ModuleType, tmp_path: Path) -> None:
    read = lines(marks, tmp_path / "marks", *ROUNDS)
    assert read.resumed_after(2.5).wall == 6.0
    assert read.resumed_after(5.5) is None


def test_worlds_are_rounds(marks: ModuleType, tmp_path: Path) -> None:
    read = lines(marks, tmp_path / "marks", *ROUNDS)
    assert read.worlds() == [(1.0, 2), (5.0, 1)]
    assert read.processes_kept() == (1, 1)


def test_last_mark_of_a_file(marks: ModuleType, tmp_path: Path) -> None:
    assert lines(marks, tmp_path / "marks", *ROUNDS).last().iteration == 2
    assert marks.Marks(tmp_path / "none").last() is None


def test_table_has_median_and_worst(report: ModuleType) -> None:
    made = [trial(report, recovery_s=s, extra_steps=e) for s, e in ((1, 0), (2, 0), (9, 4))]
    row = report.table(made).splitlines()[-1]
    assert "| 3 | 3 | 3 | 2.0 | 9.0 | 0 | 4 | 1e-15 | 3 | 0 |" in row


def test_skipped_trials_are_no_trials(report: ModuleType) -> None:
    made = [trial(report, kind="full", skipped="no mounts", ended=False)]
    assert "| 0 | - |" in report.table(made)
    assert report.failures(made) == []


@pytest.mark.parametrize(
    "fault",
    [{"ended": False}, {"difference": 1e-8}, {"rows_once": False}, {"left": ["python"]}],
)
def test_failures_name_the_seed(report: ModuleType, fault: dict[str, Any]) -> None:
    (line,) = report.failures([trial(report, seed=7, **fault), trial(report)])
    assert line.startswith("killed 7: ")
    assert not all(claim.holds for claim in report.claims([trial(report, **fault)]))


def test_claims_hold_for_good_trials(report: ModuleType) -> None:
    found = report.claims([trial(report), trial(report, kind="inside", notes={"inside": "add"})])
    assert all(claim.holds for claim in found)
    assert len(found) == 6


def test_slow_recovery_breaks_its_claim(report: ModuleType) -> None:
    (broken,) = [c for c in report.claims([trial(report, recovery_s=11.0)]) if not c.holds]
    assert broken.measured == "11.0 s"


def test_every_kind_has_a_stage(report: ModuleType) -> None:
    assert sorted(k for kinds in report.STAGES.values() for k in kinds) == sorted(report.TITLES)


@pytest.mark.slow
def test_unknown_kind_is_refused(
    run_faults: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_faults("--only", "killed,eaten")
    assert done.returncode == 2
    assert "eaten is none of" in done.stderr
