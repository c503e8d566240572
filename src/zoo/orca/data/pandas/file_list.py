"""What a path of a reader names: a file, a folder, a pattern, or a list of them, as files in order.

The same rules for every file system: a `pathlib.Path`, a `upath.UPath` and a `HadoopPlace` all do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol, TypeVar

from zoo.errors import InputError

__all__ = ["FileList", "Place", "list_files", "natural_key"]

_MAGIC = re.compile(r"[*?\[{]")
_DIGITS = re.compile(r"(\d+)")


class Place(Protocol):
    """The part of `pathlib.Path` that listing needs."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def parent(self) -> Any:
        """The folder that holds it."""

    def exists(self) -> bool:
        """Whether there is such a file or folder."""

    def is_dir(self) -> bool:
        """Whether it is a folder."""

    def iterdir(self) -> Iterable[Any]:
        """What the folder holds."""

    def stat(self) -> Any:
        """Facts of the file: `st_size`."""


P = TypeVar("P", bound=Place)


class FileList(NamedTuple):
    """Files in the order in which their rows come.

    Attributes:
        files: The places.
        root: The folder whose subfolders are named `column=value`, if there is one.
    """

    files: list[Any]
    root: Any = None


def natural_key(text: str) -> tuple[Any, ...]:
    """Sort key under which `part-2` comes before `part-10`.

    Example:
        >>> sorted(["b10", "b2", "a"], key=natural_key)
        ['a', 'b2', 'b10']
    """
    parts = [*_DIGITS.split(text), "0"]
    pairs = zip(parts[::2], map(int, parts[1::2]), strict=True)
    return (tuple(pairs), text)


def list_files(
    file_path: object,
    place_of: Callable[[str | os.PathLike[str]], P],
    *,
    missing: str,
    enter: Callable[[str], bool] = lambda name: False,
) -> FileList:
    """List the files that a path names.

    A folder stands for the files in it, ordered by name (numbers by value); names that start
    with `_` or `.` are hidden. A list keeps its order. A name that exists is that file, even if
    it looks like a pattern.

    Args:
        file_path: A text or path, or a list of them.
        place_of: From a text to a place.
        missing: What the error says of a path that is not there.
        enter: Which subfolders of a folder to list as well, by name.

    Raises:
        InputError: The path is of another type, is not there, or holds no file.
    """
    files: list[P] = []
    roots: list[P] = []
    for text in _texts(file_path):
        for place in _matches(place_of(text), f"{missing}: {text}"):
            found = list(_inside(place, enter)) if place.is_dir() else [place]
            if any(one.parent != place for one in found) and place.is_dir():
                roots.append(place)
            files += found
    if not files:
        raise InputError("at least one data file", f"none in {file_path}", "Check the path.")
    if len(roots) > 1:
        raise InputError(
            "one folder with subfolders of files",
            ", ".join(map(str, roots)),
            "Read each by itself, or name the files.",
        )
    return FileList(files, roots[0] if roots else None)


def _texts(file_path: object) -> list[str | os.PathLike[str]]:
    paths: list[Any] = list(file_path) if isinstance(file_path, (list, tuple)) else [file_path]
    wrong = [path for path in paths if not isinstance(path, (str, os.PathLike))]
    if wrong or not paths:
        received = type(wrong[0]).__name__ if wrong else "an empty list"
        raise InputError("file_path as a path or a list of paths", received, "Name the files.")
    return paths


def _inside(folder: P, enter: Callable[[str], bool]) -> Iterator[P]:
    for child in sorted(folder.iterdir(), key=lambda one: natural_key(one.name)):
        if child.name.startswith((".", "_")):
            continue
        if not child.is_dir():
            yield child
        elif enter(child.name):
            yield from _inside(child, enter)


def _matches(place: P, missing: str) -> list[P]:
    if place.exists():
        return [place]
    base, patterns = place, [""]
    while _MAGIC.search(str(base)) and base.parent != base and not base.exists():
        names = _without_braces(base.name)
        patterns = [f"{name}/{rest}" for name in names for rest in patterns]
        base = base.parent
    found: dict[str, P] = {}
    if patterns != [""] and base.exists() and base.is_dir():
        for pattern in patterns:
            found.update((str(one), one) for one in _named(base, pattern.rstrip("/").split("/")))
    if not found:
        raise InputError("a path that is there", missing, "Check the path and its spelling.")
    return [found[at] for at in sorted(found, key=natural_key)]


def _named(folder: P, patterns: list[str]) -> Iterator[P]:
    """What lies under a folder on a path like this.

    Not with each file system's own `glob`: some take brackets in the folder for a pattern.
    """
    pattern, rest = patterns[0], patterns[1:]
    if pattern == "**" and rest:
        yield from _named(folder, rest)
    for child in folder.iterdir():
        if child.name.startswith((".", "_")) and not pattern.startswith((".", "_")):
            continue
        if fnmatchcase(child.name, pattern):
            if not rest:
                yield child
            elif child.is_dir():
                yield from _named(child, patterns if pattern == "**" else rest)


def _without_braces(pattern: str) -> list[str]:
    """The patterns that `{a,b}` stands for.

    Example:
        >>> _without_braces("x{1,2}.csv")
        ['x1.csv', 'x2.csv']
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [
        name
        for choice in found.group(1).split(",")
        for name in _without_braces(before + choice + after)
    ]
