"""The example runs as a program of its own, on scikit-learn's digits."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "openvino_digits.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_runtime_knows_the_digits(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    run = run_program(EXAMPLE, timeout_s=500)
    assert run.returncode == 0, run.stderr
    found = dict(re.findall(r"^(.+): accuracy ([\d.]+)$", run.stdout, re.MULTILINE))
    assert found.keys() == {"torch", "OpenVINO", "OpenVINO, 8 bits", "ONNX Runtime"}
    assert found["torch"] == found["OpenVINO"] == found["ONNX Runtime"]
    assert float(found["torch"]) > 0.95
    assert abs(float(found["torch"]) - float(found["OpenVINO, 8 bits"])) < 0.01
    assert re.search(r"in floats, .* in 8 bits, on 597 rows", run.stdout)
