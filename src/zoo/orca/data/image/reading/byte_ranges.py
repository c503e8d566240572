"""Ranges of a file's bytes, from a disk or from any file system that fsspec knows.

No file stays open between calls: nothing has to be closed, handed to a forked worker or left out
of a pickle, and opening a local file costs a few microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from zoo.orca.data.storage import Location

__all__ = ["open_file", "read_range", "read_ranges", "read_tail", "size_of"]

# Reading a little too much costs less than another request.
_LOCAL_GAP, _REMOTE_GAP = 2**13, 2**17
_LONGEST = 2**24


def size_of(place: Location) -> int:
    """Return the bytes of a file.

    Raises:
        OSError: It cannot be read.
    """
    return int(place.stat().st_size)


def read_range(place: Location, start: int, stop: int) -> bytes:
    """Return the bytes of a file from `start` up to `stop`.

    Raises:
        OSError: The file cannot be read, or ends before.
    """
    return read_ranges(place, [(start, stop)])[0]


def read_tail(place: Location, size: int, length: int) -> bytes:
    """Return the last bytes of a file of a known size, all of them when it is shorter.

    Raises:
        OSError: The file cannot be read.
    """
    return read_range(place, max(0, size - length), size)


def read_ranges(place: Location, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return several ranges of a file, in ascending order of their start.

    Neighbours are read together when what lies between is short.

    Args:
        place: The file.
        ranges: First byte and the byte after the last, ascending.

    Raises:
        OSError: The file cannot be read, or ends before.
    """
    local = isinstance(place, Path)
    spans = _spans(ranges, _LOCAL_GAP if local else _REMOTE_GAP)
    bounds = [
        (ranges[first][0], max(stop for _, stop in ranges[first:last])) for first, last in spans
    ]
    reads = _read_local(place, bounds) if isinstance(place, Path) else _read_remote(place, bounds)
    found: list[bytes] = []
    for (first, last), (start, stop), data in zip(spans, bounds, reads, strict=True):
        if len(data) != stop - start:
            raise OSError(f"it ends early: no {stop - start} bytes from byte {start}")
        if last - first == 1:
            found.append(data)
        else:
            found.extend(data[left - start : right - start] for left, right in ranges[first:last])
    return found


def open_file(place: Location) -> Any:
    """Open a file for Arrow's readers, which close it.

    Raises:
        OSError: It cannot be read.
    """
    if isinstance(place, Path):
        return pa.OSFile(str(place))
    return pa.PythonFile(place.open("rb"), mode="r")


def _spans(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Group ranges that one read serves, as positions in the list."""
    spans: list[tuple[int, int]] = []
    first = 0
    for position in range(1, len(ranges)):
        begin, end = ranges[first][0], ranges[position - 1][1]
        start, stop = ranges[position]
        if start - end > gap or stop - begin > _LONGEST:
            spans.append((first, position))
            first = position
    if ranges:
        spans.append((first, len(ranges)))
    return spans


def _read_local(place: Path, bounds: Sequence[tuple[int, int]]) -> list[bytes]:
    # Not a memory map: a file that someone cuts short would end the process with a signal.
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [os.pread(handle, stop - start, start) for start, stop in bounds]
    finally:
        os.close(handle)


def _read_remote(place: Any, bounds: Sequence[tuple[int, int]]) -> list[bytes]:
    paths = [place.path] * len(bounds)
    starts, stops = [start for start, _ in bounds], [stop for _, stop in bounds]
    reads: list[bytes] = place.fs.cat_ranges(paths, starts, stops, on_error="raise")
    return reads
