"""What the driver does with what ranks send during a fit: snapshots, files, numbers.

One thread writes and one logs, so a slow disk never holds up the driver: at most one snapshot
waits, and a newer one takes its place. Whatever error a storage or a logger raises costs a snapshot
or the numbers, and a warning, not the fit.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zoo.cluster.ranks.messages import Message
from zoo.orca.data.storage import locate
from zoo.orca.learn.driver.snapshots import SnapshotStore, seal
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.steps import EpochStats, validation_name

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
        self._silent: set[int] = set()
        self._pool = ThreadPoolExecutor(1, "zoo-keeper")
        self._log_pool = ThreadPoolExecutor(1, "zoo-loggers")
        self._lock = threading.Lock()
        # By destination: what is to be written there next.
        self._waiting: dict[str, tuple[str, Callable[[], Any]]] = {}
        self._last: list[float] | None = None
        self._told_of_loss = False

    def __enter__(self) -> FitKeeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._pool.shutdown()
            self._log_pool.shutdown()
        finally:
            for logger in self._loggers:
                try:
                    logger.close(failed=kind is not None)
                except Exception:  # noqa: BLE001 - the others are to be closed, too
                    _log.warning("%s could not be closed", _name(logger), exc_info=True)

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
            self._soon(str(path), f"the file {path}", lambda: write_whole(path, seal(payload)))
        elif self._store is not None:
            store, iteration = self._store, body["iteration"]
            what = f"the snapshot of step {iteration}"
            self._soon("snapshot", what, lambda: store.write(iteration, payload))

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
        if not (math.isfinite(stats.loss) or self._told_of_loss):
            self._told_of_loss = True
            _log.warning(
                "the loss of epoch %d is %s: from there on the weights mean nothing. Try a lower "
                "learning rate, set_l2_norm_gradient_clipping, or look for extreme values in the "
                "data.", stats.epoch, stats.loss,
            )  # fmt: skip
        if stats.scores:
            values = {validation_name(name): value for name, value in stats.scores.items()}
            self._tell(iteration, values, "validation", wall)
        extra = {k: v for k, v in stats.extra.items() if k != "lr"}
        if extra:
            self._tell(iteration, extra, "train", wall)

    def _tell(self, iteration: int, values: dict[str, float], kind: Any, wall: float) -> None:
        self._log_pool.submit(self._tell_now, iteration, values, kind, wall)

    def _tell_now(self, iteration: int, values: dict[str, float], kind: Any, wall: float) -> None:
        for number, logger in enumerate(self._loggers):
            if number in self._silent:
                continue
            try:
                logger.log(iteration, values, kind=kind, wall_time=wall)
            except Exception:  # noqa: BLE001 - the training is worth more than its numbers
                # Not asked again: it would fail, or wait for a server, at every step.
                self._silent.add(number)
                name = _name(logger)
                _log.warning("%s failed and gets no more numbers of this fit", name, exc_info=True)

    def _soon(self, place: str, what: str, write: Callable[[], Any]) -> None:
        with self._lock:
            passed = self._waiting.pop(place, None)
            self._waiting[place] = (what, write)
        if passed is None:
            self._pool.submit(self._write_next)
        else:
            _log.info("%s takes the place of %s, which was still waiting", what, passed[0])

    def _write_next(self) -> None:
        with self._lock:
            what, write = self._waiting.pop(next(iter(self._waiting)))
        try:
            write()
        except Exception as exc:  # noqa: BLE001 - every storage has errors of its own
            why = f"{type(exc).__name__}: {exc}"
            _log.warning("%s could not be written, the ones before stay: %s", what, why)


def _name(logger: Logger) -> str:
    return f"the logger {type(logger).__name__}"
