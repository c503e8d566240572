"""Write the API pages from the docstrings: `python scripts/api_docs.py FOLDER`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pdoc

import zoo

FACES = {
    "zoo",
    "zoo.common.nncontext",
    "zoo.errors",
    "zoo.orca",
    "zoo.orca.data",
    "zoo.orca.data.elastic_search",
    "zoo.orca.data.file",
    "zoo.orca.data.image",
    "zoo.orca.data.image.parquet_dataset",
    "zoo.orca.data.image.transforms",
    "zoo.orca.data.image.utils",
    "zoo.orca.data.pandas",
    "zoo.orca.data.ray_xshards",
    "zoo.orca.data.tf.data",
    "zoo.orca.learn.callbacks",
    "zoo.orca.learn.explain",
    "zoo.orca.learn.metrics",
    "zoo.orca.learn.optimizers",
    "zoo.orca.learn.optimizers.schedule",
    "zoo.orca.learn.preprocess",
    "zoo.orca.learn.pytorch",
    "zoo.orca.learn.pytorch.pytorch_metrics",
    "zoo.orca.learn.recovery",
    "zoo.orca.learn.report",
    "zoo.orca.learn.trigger",
    "zoo.util.triggers",
}
"""Modules that programs import from; all others are marked as internal."""

INTERNAL = "*Internal: names here may change without notice.*"


def is_face(name: str) -> bool:
    """Whether programs import from the module, or from one inside it."""
    return any(f"{face}.".startswith(f"{name}.") for face in FACES)


def public_modules() -> Iterator[ModuleType]:
    yield zoo
    for found in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if "._" not in found.name:
            yield importlib.import_module(found.name)


def is_ours(value: object) -> bool:
    """Whether a public name is our own, and not one that old programs expect to find here."""
    if isinstance(value, ModuleType):
        return value.__name__.split(".")[0] == "zoo"
    if inspect.isclass(value) or inspect.isroutine(value):
        return str(value.__module__).split(".")[0] == "zoo"
    return True


def settle_names(module: ModuleType) -> None:
    """Make `__all__` what a page should show: our names, loaded, and the modules inside.

    pdoc sees neither names that wait for their first use nor modules that are not listed.
    """
    named = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
    ours = {name: value for name, value in named.items() if is_ours(value)}
    inside = [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]
    public = [name for name in inside if not name.startswith("_")]
    vars(module).update(ours, __all__=list({**ours, **dict.fromkeys(public)}))


def main(folder: str) -> None:
    for module in list(public_modules()):
        settle_names(module)
        if not is_face(module.__name__):
            module.__doc__ = f"{INTERNAL}\n\n{module.__doc__ or ''}"
    pdoc.render.configure(
        docformat="google", template_directory=Path(__file__).parent / "api_templates"
    )
    pdoc.render.env.globals["is_face"] = is_face
    # pdoc warns, and goes on, about what it cannot show. A type that only type checkers import
    # is shown as it is written.
    warnings.simplefilter("error", UserWarning)
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    pdoc.pdoc("zoo", output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
