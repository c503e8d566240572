"""What the driver does with what ranks send during a fit: snapshots, files, numbers.

Everything is written by one thread, so a slow disk does not hold up the training; at most one
snapshot waits. A disk that is full costs a snapshot and a warning, not the fit.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zoo.cluster.meeting import Message
from zoo.orca.data.storage import locate
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.snapshots import SnapshotStore, seal

__all__ = ["FitKeeper", "write_whole"]

_log = logging.getLogger(__name__)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that appears whole or not at all; folders on the way are made.

    Args:
        path: On any file system.
        data: The content.
    """
    place = locate(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(place, Path):
        place.write_bytes(data)
        return
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        part.write_bytes(data)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


class FitKeeper:
    """Takes what a fit hands to the driver. Use as a context manager.

    Args:
        store: Where snapshots go; None keeps none.
        loggers: Where numbers go.
    """

    def __init__(self, store: SnapshotStore | None, loggers: Sequence[Logger]) -> None:
        self._store, self._loggers = store, list(loggers)
        self._pool = ThreadPoolExecutor(1, "zoo-keeper")
        self._work: Future[None] | None = None
        self._last: list[float] | None = None

    def __enter__(self) -> FitKeeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        for logger in self._loggers:
            logger.close(failed=kind is not None)

    def describe(self, params: Mapping[str, Any]) -> None:
        """Tell the loggers what the fit is like. A logger that cannot be reached raises here."""
        for logger in self._loggers:
            logger.log_params(params)

    @property
    def logs(self) -> bool:
        """Whether anybody wants the numbers of steps."""
        return bool(self._loggers)

    def keep(self, message: Message) -> None:
        """Write a state, as a snapshot or to the file that a callback named."""
        body, payload = message.body, message.payload
        if body["why"] == "file":
            path = body["path"]
            self._soon(f"the file {path}", lambda: write_whole(path, seal(payload)))
        elif self._store is not None:
            store, iteration = self._store, body["iteration"]
            self._soon(f"the snapshot of step {iteration}", lambda: store.write(iteration, payload))

    def log(self, rows: Sequence[Sequence[float]]) -> None:
        """Pass on the numbers of steps."""
        for iteration, loss, rate, count, wall in rows:
            values = {"loss": loss, "lr": rate}
            if self._last is not None and wall > self._last[1] and iteration > self._last[0]:
                values["throughput"] = count / (wall - self._last[1])
            self._last = [iteration, wall]
            self._tell(int(iteration), values, "train", wall)

    def log_epoch(self, stats: EpochStats, iteration: int, wall: float) -> None:
        """Pass on the results of validation, and what callbacks added."""
        if stats.validation:
            values = {
                name if name.startswith("val_") else f"val_{name}": value
                for name, value in stats.validation.items()
            }
            self._tell(iteration, values, "validation", wall)
        extra = {k: v for k, v in stats.extra.items() if k != "lr"}
        if extra:
            self._tell(iteration, extra, "train", wall)

    def _tell(self, iteration: int, values: dict[str, float], kind: Any, wall: float) -> None:
        for logger in self._loggers:
            logger.log(iteration, values, kind=kind, wall_time=wall)

    def _soon(self, what: str, write: Callable[[], Any]) -> None:
        if self._work is not None:
            self._work.result()

        def work() -> None:
            try:
                write()
            except (OSError, ValueError) as exc:  # the training is worth more than the file
                _log.warning("%s could not be written, the ones before stay: %s", what, exc)

        self._work = self._pool.submit(work)
