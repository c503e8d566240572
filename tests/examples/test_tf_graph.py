"""The example runs as a program of its own, and TensorFlow reads what it wrote."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

EXAMPLE = Path(__file__).parents[2] / "examples" / "tf_graph.py"


@pytest.mark.slow
def test_a_graph_learns_digits(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_program(EXAMPLE, timeout_s=300)
    assert run.returncode == 0, run.stderr
    found = re.search(r"^Accuracy ([\d.]+)$", run.stdout, re.MULTILINE)
    assert found is not None, run.stdout
    assert float(found[1]) > 0.93
    reader = tf.train.load_checkpoint(str(tmp_path / "lenet" / "model"))
    assert reader.get_tensor("conv1/weights").shape == (5, 5, 1, 16)
