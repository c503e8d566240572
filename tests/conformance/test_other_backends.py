"""The tests of Keras here, on the backends that this process does not have."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = ("torch", "jax")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_conforms_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    files = [Path(__file__).with_name(f"test_{name}.py") for name in ("same_weights", "lifecycle")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "keras", "-p", "no:cacheprovider", *files],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
