"""Paths as Spark sees them: a local `Path`, or a place that Hadoop's own clients reach."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JJavaError

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.storage import Location, local_path, spark_path

__all__ = ["HadoopPlace", "head_bytes", "path_in_url", "place_for_spark", "text_for_spark"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")


class HadoopPlace:
    """A path on a file system of Hadoop, with the part of `pathlib.Path` that listing needs.

    It lives on the driver: it asks the JVM.
    """

    def __init__(self, path: Any) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path.toString())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HadoopPlace) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self._path.getName())

    @property
    def parent(self) -> HadoopPlace:
        """The folder that holds it; the root is its own."""
        above = self._path.getParent()
        return self if above is None else HadoopPlace(above)

    @property
    def path(self) -> str:
        """The path without scheme and host."""
        return str(self._path.toUri().getPath())

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._ask("exists"))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return bool(self._ask("getFileStatus").isDirectory())

    def iterdir(self) -> Iterator[HadoopPlace]:
        """What the folder holds."""
        for status in self._ask("listStatus"):
            yield HadoopPlace(status.getPath())

    def stat(self) -> SimpleNamespace:
        """Facts of the file."""
        return SimpleNamespace(st_size=int(self._ask("getFileStatus").getLen()))

    def head(self, count: int) -> bytes:
        """Up to `count` bytes from the start of the file."""
        stream = self._ask("open")
        try:
            return bytes(stream.readNBytes(count))
        finally:
            stream.close()

    def _ask(self, question: str) -> Any:
        session = active_session()
        try:
            system = self._path.getFileSystem(session.sparkContext._jsc.hadoopConfiguration())
            return getattr(system, question)(self._path)
        except Py4JJavaError as exc:
            raise InputError(
                "a path that Spark can reach",
                f"{self} ({exc.java_exception})",
                "Check the host, the keys and the path.",
            ) from exc


def place_for_spark(path: str | os.PathLike[str]) -> Path | HadoopPlace:
    """Return the place that a text names, for Spark to read.

    Raises:
        InputError: Hadoop does not know the scheme, or lacks the package that serves it.
    """
    text = str(path)
    scheme = _SCHEME.match(text)
    if not scheme or scheme.group(1).lower() == "file":
        return local_path(text)
    # Hadoop serves Amazon's storage under this name only.
    text = re.sub(r"^s3n?://", "s3a://", text)
    _require_client(text, scheme.group(1))
    return HadoopPlace(_hadoop_path(text))


def text_for_spark(place: Path | HadoopPlace) -> str:
    """The text by which Spark's readers find a place."""
    # `spark_path` takes any object whose text is the path.
    return spark_path(cast("Location", place))


def head_bytes(place: Path | HadoopPlace, count: int) -> bytes:
    """Up to `count` bytes from the start of a file."""
    if isinstance(place, HadoopPlace):
        return place.head(count)
    with place.open("rb") as stream:
        return stream.read(count)


def path_in_url(text: str) -> str:
    """The path in a URL of Spark's, as the file system knows it.

    Example:
        >>> path_in_url("file:///a%20b/c%2541")
        '/a b/c%41'
    """
    return unquote(urlsplit(text).path)


def _hadoop_path(text: str) -> Any:
    return cast("Any", active_session().sparkContext._jvm).org.apache.hadoop.fs.Path(text)


def _require_client(text: str, scheme: str) -> None:
    context = active_session().sparkContext
    system = cast("Any", context._jvm).org.apache.hadoop.fs.FileSystem
    reason = "Hadoop's client for the web tells neither sizes nor what is there"
    try:
        system.getFileSystemClass(text.split(":", 1)[0], context._jsc.hadoopConfiguration())
        if scheme.lower() not in ("http", "https"):
            return
    except Py4JJavaError as exc:
        reason = str(exc.java_exception)
    raise InputError(
        "a path on a file system that Spark can read",
        f"{text!r} ({reason})",
        f"Set OrcaContext.pandas_read_backend = 'pandas' if a Python package serves "
        f"{scheme}://, or start Spark with the jar that does (hadoop-aws for s3).",
    )
