"""Modules of the user's program travel as they are now, not by their name.

A task would import a module of that name, and a Python process that was used before has imported
it before: it would work with the code from then, after the module was edited and loaded again.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import cloudpickle

__all__ = ["own_code_by_value"]

# What is registered is a global of cloudpickle's: one thread at a time.
_lock = threading.RLock()
_INSTALLED = ("site-packages", "dist-packages")


@contextmanager
def own_code_by_value() -> Iterator[None]:
    """Inside, cloudpickle takes functions and classes of the program's own modules by value."""
    with _lock:
        registered = cloudpickle.list_registry_pickle_by_value()
        added = [m for name, m in list(sys.modules.items()) if _is_own(name, m)]
        added = [module for module in added if module.__name__ not in registered]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _is_own(name: str, module: object) -> bool:
    """Whether a module belongs to the program: neither installed, nor Python's, nor ours."""
    if not isinstance(module, ModuleType) or name.partition(".")[0] in ("zoo", "__main__"):
        return False
    path = getattr(module, "__file__", None)
    if module.__name__ != name or not isinstance(path, str) or not path.endswith(".py"):
        return False
    return _is_own_file(os.path.abspath(path))


@functools.cache
def _is_own_file(path: str) -> bool:
    # Remembered: there are thousands of modules, and each fit asks for all of them.
    if any(part in _INSTALLED for part in path.split(os.sep)):
        return False
    return not path.startswith(_library())


@functools.cache
def _library() -> tuple[str, ...]:
    """Where Python's own modules lie, with and without links."""
    paths = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")}
    return tuple({p + os.sep for path in paths for p in (path, os.path.realpath(path))})
