"""OpenVINO and NNCF without the package that tells their makers what is done with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_telemetry"]

_PACKAGE = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO or NNCF, or work with them, without anything being sent.

    Both look for the package when they are imported, and do without where it is not installed. A
    program that has imported them before keeps what it has; then its sender is put off meanwhile.
    """
    loaded: Any = sys.modules.get(_PACKAGE)
    if loaded is None:
        sys.modules[_PACKAGE] = None  # type: ignore[assignment]  # an import of it fails
        try:
            yield
        finally:
            del sys.modules[_PACKAGE]
        return
    kind = loaded.Telemetry
    send, kind.send_event = kind.send_event, _nothing
    try:
        yield
    finally:
        kind.send_event = send


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None
