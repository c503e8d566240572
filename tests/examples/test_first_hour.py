"""The notebook runs as it is, in a kernel of its own."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"
RUN = """
import os
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(os.environ["NOTEBOOK"], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, os.environ["RAN"])
"""


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_no_outputs_are_kept() -> None:
    assert not [
        cell["id"]
        for cell in code_cells(NOTEBOOK)
        if cell["outputs"] or cell["execution_count"] is not None
    ]


@pytest.fixture(scope="module")
def outputs(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """What the cells showed. An error in one ends the run."""
    ran = tmp_path_factory.mktemp("notebook") / "ran.ipynb"
    done = fresh_python(RUN, NOTEBOOK=str(NOTEBOOK), RAN=str(ran))
    assert done.returncode == 0, done.stderr
    return [output for cell in code_cells(ran) for output in cell["outputs"]]


@pytest.mark.slow
def test_models_learn(outputs: list[dict[str, Any]]) -> None:
    text = "".join("".join(one.get("text", "")) for one in outputs)
    accuracy = re.search(r"accuracy ([\d.]+) on", text)
    error = re.search(r"'MAE': ([\d.]+)", text)
    assert accuracy is not None, text
    assert error is not None, text
    assert float(accuracy[1]) > 0.9
    assert float(error[1]) < 0.3


@pytest.mark.slow
def test_figures_and_tables_show(outputs: list[dict[str, Any]]) -> None:
    shown = [kind for one in outputs for kind in one.get("data", {})]
    assert shown.count("image/png") == 4
    assert shown.count("text/html") >= 3
