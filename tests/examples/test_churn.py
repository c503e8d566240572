"""The example runs as a program of its own, on customers that it makes."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "churn.py"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def said(run_program: Run) -> str:
    """What the program prints, run once."""
    run = run_program(EXAMPLE, timeout_s=500)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_it_knows_who_leaves(said: str) -> None:
    found = re.search(r"^Accuracy ([\d.]+), classes \['no', 'yes'\]$", said, re.MULTILINE)
    assert found is not None, said
    assert float(found[1]) > 0.95


def test_new_customers_have_an_answer_in_words(said: str) -> None:
    assert re.search(r"^\| +DE\| +basic\| +3.0\|95.0\| +yes\|$", said, re.MULTILINE), said
    assert re.search(r"^\| +JP\| +NULL\| +50.0\|20.0\| +no\|$", said, re.MULTILINE), said


def test_the_stream_has_the_same_answers(said: str) -> None:
    assert "From the stream: {'no': 2, 'yes': 1}" in said
