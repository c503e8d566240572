"""The benchmark of inference keeps working; its figures are nobody's gate."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_small_run(
    run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file, only = tmp_path / "numbers.json", ("--only", "torch,torch_loop,udf,onnx,openvino,int8")
    size = ("--rows", 400, "--size", 32, "--rounds", 1)
    done = run_program(SCRIPT, *size, *only, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["contenders"].keys() == set(only[1].split(","))
    assert found["digits"]["floats"] - found["digits"]["int8"] < 0.01
    assert "of the bare loop" in done.stdout
