"""Torch's compiler is loaded when something is compiled, and not by the first optimizer.

Each optimizer asks `torch._dynamo` to break its graph, in every step, and so the first one of a
process loads it: 1.2 seconds of a core and 800 modules, in each rank and on the driver, where most
fits compile nothing. Until something else of it is wanted, a stand-in answers optimizers.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, MutableSequence, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

__all__ = ["put_off_compiler"]

_NAME = "torch._dynamo"
_lock = threading.RLock()


def put_off_compiler() -> None:
    """Have `torch._dynamo` loaded later than by an optimizer, where nobody has loaded it yet."""
    with _lock:
        if _NAME not in sys.modules:
            stand_in: Any = _StandIn()
            sys.meta_path.insert(0, _Parts())
            sys.modules[_NAME] = torch._dynamo = stand_in


def _load() -> ModuleType:
    """Load the real one, in the place of the stand-in."""
    with _lock:
        if isinstance(sys.modules.get(_NAME), _StandIn):
            del sys.modules[_NAME], torch._dynamo
            sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _Parts)]
        return importlib.import_module(_NAME)


class _StandIn(ModuleType):
    """What optimizers find under the name of the compiler; all else loads it."""

    # A package: who imports a module of it comes to `_Parts`.
    __path__: MutableSequence[str] = []  # noqa: RUF012 - as `ModuleType` says

    def __init__(self) -> None:
        super().__init__(_NAME, __doc__)

    @staticmethod
    def graph_break(*_: object) -> None:
        """There is no graph as long as nothing is compiled."""

    @staticmethod
    def disable(fn: Any = None, *args: Any, **options: Any) -> Any:
        """Keep a function out of graphs, from when there may be some."""
        if not callable(fn):
            return _load().disable(fn, *args, **options)

        @functools.wraps(fn)
        def run(*inputs: Any, **named: Any) -> Any:
            real = sys.modules.get(_NAME)
            if real is None or isinstance(real, _StandIn):
                return fn(*inputs, **named)
            return disabled(real)(*inputs, **named)

        @functools.cache
        def disabled(real: ModuleType) -> Callable[..., Any]:
            kept: Callable[..., Any] = real.disable(fn, *args, **options)
            return kept

        return run

    def __getattr__(self, name: str) -> Any:
        # `inspect` asks every module for its file, also while torch is half way through an import
        # that the compiler needs.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_load(), name)


class _Parts(MetaPathFinder):
    """Loads the compiler when a module of it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Import the module as it should be, and hand over the one that is there then."""
        if not fullname.startswith(f"{_NAME}."):
            return None
        _load()
        return ModuleSpec(fullname, _There(importlib.import_module(fullname)))


class _There(Loader):
    """Hands over a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run; Python has just given it another specification."""
        module.__spec__ = self._spec
