"""Where data lies: the one door to local paths and to every file system that fsspec knows.

Plain paths and `file://` become a `pathlib.Path`, everything else (`hdfs://`, `s3://`, `gs://`,
`memory://`, ...) a `upath.UPath`, which reads and writes like a `Path` and can be pickled. Keys
and endpoints come from where each file system looks for them, `AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY` for S3, never from the text of a path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import fsspec
from upath import UPath

from zoo.errors import InputError

__all__ = ["Location", "is_local", "local_path", "locate", "spark_path"]

Location = Path | UPath
"""A place: what `pathlib` calls a path, on any file system."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
_GLOB = re.compile(r"([\\{}\[\]*?])")


def locate(path: str | os.PathLike[str]) -> Location:
    """Return the place that a text names.

    `file://` paths are taken as they are, without percent-decoding: programs join the prefix and
    a folder's name, and so does Hadoop.

    Args:
        path: A plain path, relative to the working directory, or one with a scheme.

    Raises:
        InputError: The text names no place, fsspec does not know its scheme, or the package that
            serves the scheme is not installed.
    """
    if isinstance(path, UPath):
        return path
    text = os.fspath(path)
    scheme = _SCHEME.match(text)
    if not scheme or scheme.group(1).lower() == "file":
        return _local(text, scheme is not None)
    protocol = scheme.group(1).lower()
    try:
        fsspec.get_filesystem_class(protocol)
        return UPath(text)
    except (ImportError, ValueError) as exc:
        raise InputError(
            "a path on a file system that fsspec can reach here",
            f"{text!r} ({exc})",
            f"Install the package that serves {protocol}:// (s3fs for s3, gcsfs for gs, a Hadoop "
            "client for hdfs), or use storage that every host mounts as a folder.",
        ) from exc


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute local path that a plain or a `file://` path names.

    Raises:
        InputError: The text names no local path.
    """
    place = locate(path)
    if not isinstance(place, Path):
        raise InputError(
            "a local path or file://", repr(str(path)), "Use storage that is mounted as a folder."
        )
    return place


def is_local(place: Location) -> bool:
    """Whether a place is a path of this machine, where renaming is atomic."""
    return isinstance(place, Path)


def spark_path(place: Location) -> str:
    """Return the text by which Spark finds a place, whatever its default file system.

    Spark reads brackets and stars as patterns, so those of a name are escaped.
    """
    if isinstance(place, Path):
        return "file://" + _escaped(str(place))
    text = str(place)
    # Hadoop serves Amazon's storage under this name only.
    return _escaped(re.sub(r"^s3://", "s3a://", text))


def _escaped(text: str) -> str:
    return _GLOB.sub(r"\\\1", text)


def _local(text: str, with_scheme: bool) -> Path:
    shown = repr(text)
    if with_scheme:
        text = text[len("file:") :]
        text = text[2:] if text.startswith("//") else text
        if not text.startswith("/"):
            raise InputError("an absolute path after file://", shown, "Write file:///folder.")
    if not text:
        raise InputError("the path of a file or folder", "an empty text", "Name one.")
    return Path(os.path.abspath(text))
