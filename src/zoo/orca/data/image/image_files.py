"""Image files into a Spark DataFrame: the driver lists them, tasks read them."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.image.on_error import OnError, check_on_error
from zoo.orca.data.storage import Location, is_local, locate

__all__ = ["MAX_FILE_BYTES", "read_images"]

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 2**28
"""Larger files are no images that Spark could carry in a row."""

_BATCH_BYTES, _BATCH_ROWS = 8 << 20, 1024
_TASK_FILES = 2000
# Requests to a remote file system that are under way at once, in each task.
_REQUESTS = 8
_PATTERN = re.compile(r"[*?\[]")


class _File(NamedTuple):
    """A file, and the name of its class: the folder it lies in."""

    path: str
    label: str


def read_images(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    label_from_folder: bool = False,
    min_partitions: int | None = None,
    on_error: OnError = "fail",
) -> DataFrame:
    """Read image files as they are: a row for each, in the order of their paths.

    The images are decoded later, by `transform_images` or by an estimator's decoder. A folder
    gives all its files, whatever their names end in, but the hidden ones; a pattern such as
    `"/data/*.jpg"` gives what matches.

    Args:
        path: A file, a folder or a pattern, on any file system, or a list of them.
        recursive: Go into sub-folders, but not through links, which may lead back up.
        label_from_folder: Add `label_str`, the sub-folder of a given folder that the file is
            under, or of single files the folder they lie in; and `label`, its number from 0 in
            the order of the names.
        min_partitions: At least this many partitions, as far as there are files.
        on_error: What to do about files that cannot be read or are empty. "fail" raises in the
            task that meets the first; "skip" leaves them out and says how many in its log;
            "quarantine" keeps their rows, with a null `image` and the cause in `reason`.

    Returns:
        A lazy DataFrame with `path`, `image` (the bytes), and what was asked for.

    Raises:
        InputError: There is no such file, or a setting is not known.
        ClusterError: No Spark session is active.
    """
    check_on_error(on_error)
    whole = isinstance(min_partitions, int) and not isinstance(min_partitions, bool)
    if min_partitions is not None and not (whole and min_partitions > 0):
        raise InputError(
            "min_partitions as a positive int, or None", repr(min_partitions), "Correct it."
        )
    files = _listed(path, recursive, label_from_folder)
    context = active_session().sparkContext
    tasks = max(context.defaultParallelism, min_partitions or 1, -(-len(files) // _TASK_FILES))
    numbers = {name: at for at, name in enumerate(sorted({file.label for file in files}))}
    slices = [(_packed(files[a:b], numbers),) for a, b in _cuts(len(files), min(tasks, len(files)))]
    frame = active_session().createDataFrame(
        context.parallelize(slices, len(slices)), "files binary"
    )
    labels = ", label long, label_str string" if label_from_folder else ""
    reason = ", reason string" if on_error == "quarantine" else ""
    schema = f"path string, image binary{labels}{reason}"
    columns = [part.split()[0] for part in schema.split(", ")]

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _read(batches, columns, on_error)

    return frame.mapInArrow(read, schema)


# On the driver


def _listed(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    recursive: bool,
    with_labels: bool,
) -> list[_File]:
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    files = {file.path: file for one in paths for file in _found(locate(one), recursive)}
    if not files:
        raise InputError(
            "at least one image file",
            f"{', '.join(str(one) for one in paths[:5]) or 'no path'} with none",
            "Check the path, and recursive.",
        )
    ordered = [files[name] for name in sorted(files)]
    if with_labels and (bare := next((file for file in ordered if not file.label), None)):
        raise InputError(
            "images in sub-folders, whose names are the labels",
            f"{bare.path!r} beside them",
            "Move it into the folder of a class, or leave label_from_folder out.",
        )
    return ordered


def _found(place: Location, recursive: bool) -> Iterator[_File]:
    # A name that exists is no pattern, even with brackets in it.
    if place.is_dir():
        for file, label in _walked(place, "", recursive):
            yield _File(_text(file), label)
    elif place.exists() or not _PATTERN.search(str(place)):
        if not place.exists():
            raise InputError("a file, folder or pattern", f"{str(place)!r}", "Check the path.")
        yield _File(_text(place), place.parent.name)
    else:
        for match in _matches(place):
            if match.is_file():
                yield _File(_text(match), match.parent.name)
            elif match.is_dir():
                yield from _found(match, recursive)


def _walked(folder: Location, label: str, recursive: bool) -> Iterator[tuple[Location, str]]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry, label
        elif recursive and not entry.is_symlink():  # a link may lead back up
            yield from _walked(entry, label or entry.name, recursive)


def _matches(place: Location) -> Iterator[Location]:
    base = place
    names: list[str] = []
    while _PATTERN.search(str(base)) and base != base.parent:
        names.insert(0, base.name)
        base = base.parent
    yield from base.glob("/".join(names))


def _text(place: Location) -> str:
    # A name that is no UTF-8 cannot travel; the file is then reported under what is shown here.
    text = str(place).encode("utf-8", "surrogateescape")
    return text.decode("utf-8", "backslashreplace")


def _cuts(count: int, parts: int) -> list[tuple[int, int]]:
    edges = [count * part // parts for part in range(parts + 1)]
    return list(zip(edges, edges[1:], strict=False))


def _packed(files: Sequence[_File], numbers: dict[str, int]) -> bytearray:
    table = pa.table(
        {
            "path": [file.path for file in files],
            "label": pa.array([numbers[file.label] for file in files], pa.int64()),
            "label_str": [file.label for file in files],
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytearray(sink.getvalue())


# In the tasks


def _read(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], on_error: OnError
) -> Iterator[pa.RecordBatch]:
    rows: dict[str, list[object]] = {name: [] for name in columns}
    size, skipped = 0, 0
    for record, data, reason in _with_bytes(_records(batches)):
        if reason and on_error == "fail":
            raise InputError(
                "image files that can be read",
                f"{record['path']!r}, {reason}",
                'Repair it, or choose on_error="skip" or "quarantine".',
            )
        if reason and on_error == "skip":
            skipped += 1
            _log.warning("skipped %r: %s", record["path"], reason)
            continue
        values = {**record, "image": data, "reason": reason}
        for name, column in rows.items():
            column.append(values[name])
        size += len(data or b"")
        if size >= _BATCH_BYTES or len(rows["path"]) >= _BATCH_ROWS:
            yield _batch(rows)
            size = 0
    if skipped:
        _log.warning("skipped %d files of this task", skipped)
    if rows["path"]:
        yield _batch(rows)


def _records(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, object]]:
    for batch in batches:
        for packed in batch.column(0):
            with pa.ipc.open_stream(packed.as_buffer()) as stream:
                for part in stream:
                    yield from part.to_pylist()


def _with_bytes(
    records: Iterable[dict[str, object]],
) -> Iterator[tuple[dict[str, object], bytes | None, str | None]]:
    """Each record with its bytes or a reason, in order, some requests ahead."""
    records = iter(records)
    with ThreadPoolExecutor(_REQUESTS) as pool:
        while some := list(islice(records, _REQUESTS)):
            places = [locate(str(record["path"])) for record in some]
            # Threads cost more than they bring where reading does not wait.
            read = map if all(map(is_local, places)) else pool.map
            for record, (data, reason) in zip(some, read(_bytes_of, places), strict=True):
                yield record, data, reason


def _bytes_of(place: Location) -> tuple[bytes | None, str | None]:
    try:
        with place.open("rb") as file:
            data: bytes = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        return None, f"{type(exc).__name__}: {getattr(exc, 'strerror', None) or exc}"
    if not data:
        return None, "an empty file"
    if len(data) > MAX_FILE_BYTES:
        return None, f"a file of more than {MAX_FILE_BYTES} bytes"
    return data, None


def _batch(rows: dict[str, list[object]]) -> pa.RecordBatch:
    """A batch of the rows so far, which are forgotten."""
    kinds = {"image": pa.binary(), "label": pa.int64()}
    arrays = [pa.array(column, kinds.get(name, pa.string())) for name, column in rows.items()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(rows))
    for column in rows.values():
        column.clear()
    return batch
