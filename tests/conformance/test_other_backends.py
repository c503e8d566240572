"""The tests of Keras here, on the backends that this process does not have."""

import importlib.util
from pathlib import Path

import pytest

from orca.learn.keras.on_backend import run_tests

FILES = [Path(__file__).with_name(f"test_{name}.py") for name in ("same_weights", "lifecycle")]


# Partitionings and numbers of ranks; the rest of the matrix takes minutes.
SOME = "keras and same_weights and (spark or (processes and skewed))"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(SOME, id="some", marks=pytest.mark.slow),
        pytest.param("keras", id="all", marks=pytest.mark.long),
    ],
)
def test_keras_conforms_on(backend: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")  # the models are in double precision
    run_tests(backend, "-k", chosen, *FILES)
