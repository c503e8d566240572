"""The site of the documents: `make docs`."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import zoo

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from guide_notebooks import programs, write_notebooks

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FACES = [
    "zoo.orca",
    "zoo.orca.data.elastic_search",
    "zoo.orca.data",
    "zoo.orca.data.pandas",
    "zoo.orca.data.image",
    "zoo.orca.data.image.transforms",
    "zoo.orca.data.file",
    "zoo.orca.data.tf.data",
    "zoo.orca.learn.pytorch",
    "zoo.orca.learn.pytorch.estimator",
    "zoo.orca.learn.openvino",
    "zoo.orca.learn.openvino.estimator",
    "zoo.orca.learn.openvino.quantize",
    "zoo.orca.learn.onnx",
    "zoo.orca.learn.onnx.estimator",
    "zoo.orca.learn.tf.estimator",
    "zoo.orca.learn.graph",
    "zoo.orca.learn.tf2",
    "zoo.orca.learn.preprocess",
    "zoo.orca.learn.metrics",
    "zoo.orca.learn.history",
    "zoo.orca.learn.report",
    "zoo.orca.learn.explain",
    "zoo.orca.learn.callbacks",
    "zoo.orca.learn.trigger",
    "zoo.orca.learn.recovery",
    "zoo.orca.learn.optimizers",
    "zoo.orca.learn.optimizers.schedule",
    "zoo.orca.learn.loggers",
    "zoo.orca.learn.mlflow_logger",
    "zoo.errors",
    # Paths of older programs.
    "zoo.orca.data.image.parquet_dataset",
    "zoo.orca.data.image.utils",
    "zoo.orca.data.ray_xshards",
    "zoo.orca.learn.pytorch.pytorch_metrics",
    "zoo.util.triggers",
    "zoo.common.nncontext",
    "zoo",
]
"""Modules that programs import from, or whose objects they are given; all others are internal.

The first that lists a name describes it.
"""

project = "Zoo"
version = release = zoo.__version__
copyright = "the maintainers of Zoo"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["guides/pictures"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Zoo {version}"
html_show_copyright = False
html_show_sourcelink = False
NOTEBOOKS = Path(__file__).parents[1] / "build" / "notebooks"
html_extra_path = [str(NOTEBOOKS)]

# `name` in a docstring is code.
default_role = "literal"
add_module_names = False
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
# A type that several pages show may be meant to be any of them.
suppress_warnings = ["ref.python"]


def is_ours(value: object) -> bool:
    """Whether a public name is our own, and not one that old programs expect to find there."""
    return (inspect.isclass(value) or inspect.isroutine(value)) and (
        str(value.__module__).split(".")[0] == "zoo"
    )


def described(face: str, name: str, value: object) -> str:
    """What the page of a module says of one of its names."""
    kind = "class" if inspect.isclass(value) else "function"
    # What a class has from an internal base is its own to users; what it has from Python is not.
    members = "   :members:\n   :inherited-members: BaseException, ImportError, Enum, list, tuple\n"
    return f".. auto{kind}:: {face}.{name}\n{members if kind == 'class' else ''}"


def write_pages(app: Sphinx) -> None:
    """Write a page for each face."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    homes: dict[object, str] = {}
    for face in FACES:
        module = importlib.import_module(face)
        parts = [f"{face}\n{'=' * len(face)}", f".. automodule:: {face}"]
        for name in module.__all__:
            value = getattr(module, name)
            if not is_ours(value):
                continue
            home = homes.setdefault(value, f"{face}.{name}")
            same = f"``{name}`` is :py:obj:`{home}`."
            parts.append(described(face, name, value) if home == f"{face}.{name}" else same)
        (folder / f"{face}.rst").write_text("\n\n".join(parts) + "\n")


def offer_notebook(app: Sphinx, name: str, source: list[str]) -> None:
    """Put a link to its notebook under the heading of a guide."""
    if (guide := name.removeprefix("guides/")) in programs() and guide != name:
        heading, _, rest = source[0].partition("\n")
        link = f'<p><a href="../{guide}.ipynb" download>This page as a notebook</a></p>'
        source[0] = f"{heading}\n\n```{{raw}} html\n{link}\n```\n{rest}"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    write_notebooks(NOTEBOOKS)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", offer_notebook)
