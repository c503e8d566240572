"""The benchmark of Keras keeps working; its figures are nobody's gate."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "frame_to_keras.py"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_small_run(
    run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file = tmp_path / "numbers.json"
    size = ("--rows", 4_000, "--batch", 512, "--epochs", 2, "--backends", "tensorflow")
    done = run_program(SCRIPT, *size, "--only", "ours,topandas,limit", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())["tensorflow"]
    losses = [found["ours"]["second fit"]["loss"], found["limit"]["fit"]["loss"]]
    assert max(losses) < 2 * min(losses)
    assert "of the limit" in done.stdout
