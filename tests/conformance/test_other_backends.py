"""The tests of Keras here, on the backends that this process does not have."""

import importlib.util
from pathlib import Path

import pytest

from orca.learn.keras.on_backend import run_tests

FILES = [Path(__file__).with_name(f"test_{name}.py") for name in ("same_weights", "lifecycle")]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_conforms_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run_tests(backend, "-k", "keras", *FILES)
