"""Where a dataset lies: the one place that reads path texts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from zoo.errors import InputError, NotYetError

__all__ = ["local_path", "spark_path"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
_GLOB = re.compile(r"([\\{}\[\]*?])")


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path that a plain path or a `file://` path names.

    `file://` paths are taken as they are, without percent-decoding: programs join the prefix and
    a folder's name, and so does Hadoop.

    Raises:
        InputError: The text names no local path.
        NotYetError: The path is on another file system.
    """
    text = os.fspath(path)
    scheme = _SCHEME.match(text)
    if scheme and scheme.group(1).lower() != "file":
        raise NotYetError(
            "a local path or file://", repr(text), "Use storage that every host mounts as a folder."
        )
    if scheme:
        text = text[len("file:") :]
        text = text[2:] if text.startswith("//") else text
        if not text.startswith("/"):
            raise InputError(
                "an absolute path after file://", repr(os.fspath(path)), "Write file:///folder."
            )
    if not text:
        raise InputError("the path of a folder", "an empty text", "Name a folder.")
    return Path(os.path.abspath(text))


def spark_path(path: Path) -> str:
    """Return the text by which Spark finds a local path, whatever its default file system.

    Spark reads brackets and stars as patterns, so those of a name are escaped.
    """
    return "file://" + _GLOB.sub(r"\\\1", str(path))
