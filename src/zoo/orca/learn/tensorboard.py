"""Summaries of a training for TensorBoard, and reading them back.

`<log_dir>/<app_name>/train` and `/validation` hold event files; `tensorboard --logdir <log_dir>`
shows them. Values are kept in single precision, as TensorBoard has it.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from zoo.errors import InputError, load_extra
from zoo.orca.data.image.formats.tfrecord_file import read_records
from zoo.orca.data.storage import Location, local_path, locate
from zoo.orca.learn.loggers import Kind, Logger

__all__ = ["TRAIN_TAGS", "TagError", "TensorBoardSummary", "read_scalar", "read_summary"]

TRAIN_TAGS = ("Loss", "LearningRate", "Throughput")
"""What is written of every step; `Throughput` is in rows a second."""

_NAMES = {"loss": "Loss", "lr": "LearningRate", "throughput": "Throughput"}
_FLUSH_S = 5.0

# Two fits in one second must not write one file.
_numbers = itertools.count()

_log = logging.getLogger(__name__)


class TagError(InputError, TypeError):
    """A train summary has no such tag; a `TypeError` for programs written for Analytics Zoo."""


class TensorBoardSummary(Logger):
    """Writes what a training logs as TensorBoard event files.

    When the disk fails the training goes on without summaries, with one warning.

    Attributes:
        folder: The folder that holds `train` and `validation`.
    """

    def __init__(self, log_dir: str | os.PathLike[str], app_name: str) -> None:
        """Make the folder.

        Args:
            log_dir: A folder of the driver: a plain path or `file://`, which may be mounted
                storage.
            app_name: Name of the training, a folder in it.

        Raises:
            InputError: The folder is elsewhere, or cannot be made.
            MissingExtraError: The extra `tensorboard` is not installed.
        """
        load_extra("tensorboardX", "tensorboard")
        self.folder = _local_folder(log_dir, app_name)
        self._begin: int | None = None
        self._last: dict[str, int] = {}
        self._files: dict[str, _EventFile] = {}
        self._broken = False

    def log(
        self, iteration: int, values: Mapping[str, float], *, kind: Kind, wall_time: float
    ) -> None:
        """Write numbers, `loss`, `lr` and `throughput` as tags of `TRAIN_TAGS`, `val_x` as `x`.

        Args:
            iteration: Steps done in all.
            values: Numbers by name.
            kind: Of which data they tell: each has a folder.
            wall_time: When, in seconds since 1970.
        """
        if self._broken:
            return
        tags = {_tag(name, kind): float(value) for name, value in values.items()}
        self._begin = iteration if self._begin is None else self._begin
        try:
            if kind not in self._files:
                self._files[kind] = _EventFile(self.folder / kind)
            # What earlier runs wrote from here on does not count any more: they were another
            # training, or one that ended without saving those steps.
            if iteration < self._last.get(kind, iteration + 1):
                first = self._begin if kind not in self._last else iteration
                self._files[kind].restart(min(first, iteration), wall_time)
            self._files[kind].write(iteration, tags, wall_time)
        except OSError as exc:
            self._give_up(exc)
        self._last[kind] = iteration

    def close(self, *, failed: bool = False) -> None:
        """Write what is in memory. Logging again begins new files.

        Args:
            failed: Makes no difference here.
        """
        while self._files:
            _, file = self._files.popitem()
            try:
                file.close()
            except OSError as exc:
                self._give_up(exc)

    def _give_up(self, exc: OSError) -> None:
        if not self._broken:
            _log.warning("No more summaries are written to %s: %s", self.folder, exc)
        self._broken = True


def read_summary(
    log_dir: str | os.PathLike[str], app_name: str, kind: Kind, tag: str | None
) -> list[list[float]]:
    """Read one tag of a training's summary.

    Args:
        log_dir: As given to `TensorBoardSummary`.
        app_name: As given there.
        kind: `train` or `validation`.
        tag: One of `TRAIN_TAGS`; for `validation` `Loss` or the name of a metric.

    Returns:
        Rows `[iteration, value, wall time]` in order of iteration; none when nothing was written.

    Raises:
        TagError: There is no such tag in train summaries, or no tag was given.
        MissingExtraError: The extra `tensorboard` is not installed.
    """
    if not isinstance(tag, str) or (kind == "train" and tag not in TRAIN_TAGS):
        known = "one of " + ", ".join(TRAIN_TAGS) if kind == "train" else "Loss or a metric's name"
        raise TagError(f"a tag of the {kind} summary: {known}", repr(tag), "Name one of them.")
    return read_scalar(locate(log_dir) / app_name / kind, tag)


def read_scalar(folder: str | Location, tag: str) -> list[list[float]]:
    """Read one tag from the event files of a folder.

    Of an iteration that was written twice the later row counts. A file that ends inside a record,
    as one that is being written does, is read up to there.

    Args:
        folder: The folder of the files, on any file system.
        tag: Which numbers.

    Returns:
        Rows `[iteration, value, wall time]` in order of iteration; none when there are no files.

    Raises:
        InputError: A file cannot be read.
        MissingExtraError: The extra `tensorboard` is not installed.
    """
    proto = load_extra("tensorboardX.proto.event_pb2", "tensorboard")
    rows: dict[int, list[float]] = {}
    there: set[str] = set()
    place = locate(folder) if isinstance(folder, str) else folder
    for event in _events(place, proto.Event):
        if event.session_log.status == proto.SessionLog.START:
            rows = {step: row for step, row in rows.items() if step < event.step}
        for value in event.summary.value:
            there.add(value.tag)
            if value.tag == tag and value.WhichOneof("value") == "simple_value":
                rows[event.step] = [event.step, value.simple_value, event.wall_time]
    if there and tag not in there:
        _log.warning("No %r in %s, which has %s", tag, folder, ", ".join(sorted(there)))
    return [row for _, row in sorted(rows.items())]


class _EventFile:
    """One event file. Each iteration is one record."""

    def __init__(self, folder: Path) -> None:
        self._proto = load_extra("tensorboardX.proto.event_pb2", "tensorboard")
        self._summary = load_extra("tensorboardX.proto.summary_pb2", "tensorboard").Summary
        folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        made = f"{int(started)}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        # The writer, not the library's queue and thread: the driver has few rows to write, and
        # they must be there when `close` returns.
        records = load_extra("tensorboardX", "tensorboard").RecordWriter
        self._writer = records(str(folder / f"events.out.tfevents.{made}"))
        self._flushed = float("-inf")
        self._write(file_version="brain.Event:2", wall_time=started)

    def restart(self, iteration: int, wall_time: float) -> None:
        """Say that what was written before of this iteration and later does not count."""
        log = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(step=iteration, wall_time=wall_time, session_log=log)

    def write(self, iteration: int, tags: Mapping[str, float], wall_time: float) -> None:
        values = [self._summary.Value(tag=tag, simple_value=one) for tag, one in tags.items()]
        self._write(step=iteration, wall_time=wall_time, summary=self._summary(value=values))
        # Often enough for somebody who watches; the flush waits for the disk.
        if time.monotonic() - self._flushed > _FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        try:
            self._writer.flush()
        finally:
            self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._proto.Event(**fields).SerializeToString())


def _local_folder(log_dir: str | os.PathLike[str], app_name: str) -> Path:
    try:
        folder = local_path(log_dir) / app_name
        for kind in get_args(Kind):
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except InputError as exc:
        raise InputError(
            "log_dir as a local path or file://, as TensorBoard files grow row by row",
            repr(os.fspath(log_dir)),
            "Log to a local folder or to storage that is mounted as one.",
        ) from exc
    except OSError as exc:
        raise InputError(
            "a log_dir in which folders can be made", f"{str(log_dir)!r} ({exc})", "Use another."
        ) from exc
    return folder


def _tag(name: str, kind: Kind) -> str:
    name = name.removeprefix("val_") if kind == "validation" else name
    return _NAMES.get(name, name)


def _events(folder: Location, event: Any) -> Iterator[Any]:
    """All events, those of the file that was begun first ahead."""
    if not folder.is_dir():
        return
    files = [file for file in folder.iterdir() if ".tfevents." in file.name]
    for file in sorted(files, key=lambda file: (_begun(file, event), file.name)):
        for record in _whole_records(file):
            yield event.FromString(record)


def _begun(file: Location, event: Any) -> float:
    first = next(_whole_records(file), b"")
    return float(event.FromString(first).wall_time)


def _whole_records(file: Location) -> Iterator[bytes]:
    try:
        yield from read_records(file)
    except InputError as exc:
        if isinstance(exc.__cause__, OSError):
            raise
        _log.debug("Read up to there: %s", exc)
