"""Keras on JAX does what Keras on TensorFlow does, where JAX is installed."""

import importlib.util
from pathlib import Path

import pytest

from orca.learn.keras.on_backend import run_tests

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_steps_and_metrics_on_jax() -> None:
    chosen = "test_steps or classes or several or does_not_add_up or model_of_the_user"
    # Keras's own metrics ask JAX for whole numbers of 64 bits.
    ignored = "ignore:Explicitly requested dtype"
    files = HERE / "test_steps.py", HERE.parent / "test_metrics.py"
    run_tests("jax", *files, "-k", chosen, "-W", ignored)
