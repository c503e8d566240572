"""What is installed from the wheel: the library, its types and its licence, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = """
import os
from setuptools import build_meta
os.chdir(os.environ["TREE"])
build_meta.build_wheel(os.environ["OUT"])
"""
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import zoo; print(zoo.__version__)"


@pytest.fixture(scope="module")
def wheel(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Built from a copy: setuptools leaves files in the tree, and takes old ones from there."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    # What would be taken by mistake is there.
    shutil.copytree(ROOT / "tests" / "packaging", tree / "tests" / "packaging")
    no_traces = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tree / "src", ignore=no_traces)
    done = fresh_python(BUILD, TREE=str(tree), OUT=str(out))
    assert done.returncode == 0, done.stderr
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    source = ROOT / "src"
    ours = {
        path.relative_to(source).as_posix()
        for path in (source / "zoo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as held:
        names = {name for name in held.namelist() if ".dist-info/" not in name}
    assert names == ours
    assert "zoo/py.typed" in names


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as held:
        [place] = [name for name in held.namelist() if name.endswith(".dist-info/METADATA")]
        says = Parser().parsestr(held.read(place).decode())
        assert place.replace("METADATA", "licenses/LICENSE") in held.namelist()
    needs = [need for need in says.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert "pyspark<5,>=4.1" in needs
    assert not [need for need in needs if need.startswith(("torch", "tensorflow", "matplotlib"))]
    assert says["License-Expression"] == "Apache-2.0"


def test_the_wheel_is_imported_without_any_other_package(wheel: Path) -> None:
    run = [sys.executable, "-I", "-S", "-c", IMPORT, str(wheel)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in wheel.name
