"""The programs of the tutorial, each as a program of its own."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What each reaches; the most frequent label alone gives 0.1, 0.1, 0.44 and 0.77.
REACHED = {
    "pytorch_quickstart": 0.9,
    "keras_quickstart": 0.9,
    "keras_frame": 0.6,
    "ncf_xshards": 0.85,
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", REACHED)
def test_it_learns(name: str, run_program: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    run = run_program(EXAMPLES / f"{name}.py", timeout_s=500)
    assert run.returncode == 0, run.stderr
    losses = [float(loss) for loss in re.findall(r"^Epoch \d+: loss ([\d.]+)$", run.stdout, re.M)]
    assert len(losses) >= 4
    assert losses[-1] < losses[0]
    found = re.search(r"^Accuracy ([\d.]+)$", run.stdout, re.MULTILINE)
    assert found is not None, run.stdout
    assert float(found[1]) > REACHED[name]
