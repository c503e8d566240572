"""Tests again, in a process whose Keras has another backend: it is chosen once for a process."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["run_tests"]


def run_tests(backend: str, *arguments: object) -> None:
    """Run pytest on a backend; all that it runs has to pass.

    Args:
        backend: `torch` or `jax`.
        arguments: Files and options.
    """
    environment = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
