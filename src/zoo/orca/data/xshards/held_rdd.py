"""An RDD that Spark holds for as long as somebody can reach it."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from typing import Any, Self

from pyspark import RDD, StorageLevel

from zoo.cluster.settings import settings
from zoo.orca.data.xshards.jobs import run_job

__all__ = ["HeldRdd"]


class HeldRdd:
    """An RDD that Spark holds on the local disks of its executors.

    What is used often is in the page cache all the same, so this costs little. In the heap of the
    JVM a shard is one object of all its bytes, and some large ones at once are more than it takes.

    It is held until `uncache` is called, or until nothing refers to this object any more.

    Args:
        rdd: What to hold; also the attribute `rdd`.
        transient: Neither compute nor hold it.
    """

    def __init__(self, rdd: RDD[Any], transient: bool = False) -> None:
        self.rdd = rdd
        # What its owner had cached before stays cached when this object is forgotten.
        self.user_cached = rdd.is_cached
        self.eager = settings.eager_mode and not transient
        self._finalizer: Any = None
        if not transient:
            self._persist()
        if self.eager:
            self.compute()

    def cache(self) -> Self:
        """Hold the shards until `uncache` is called, also when others are made of them."""
        self.user_cached = True
        self._persist()
        return self

    def uncache(self) -> Self:
        """Hold the shards no longer; they are computed again when they are needed again."""
        self.user_cached = False
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if self.rdd.is_cached and self.rdd.ctx._jsc is not None:
            self.rdd.unpersist()
        self.rdd.is_cached = False
        return self

    def is_cached(self) -> bool:
        """Whether Spark holds the shards, or will when they are computed."""
        return bool(self.rdd.is_cached)

    def compute(self) -> Self:
        """Compute the shards now.

        Raises:
            Exception: What a function that makes the shards raises, as its own type.
        """
        # In the JVM: the count of RDD would have a second Python read all shards.
        run_job(self.rdd.ctx, lambda: self.rdd._jrdd.count())
        return self

    def _uncache(self) -> None:
        """Let go of the shards, unless the user wants them."""
        if not self.user_cached:
            self.uncache()

    def _persist(self) -> None:
        if not self.rdd.is_cached:
            _start_releaser()
            self.rdd.persist(StorageLevel.DISK_ONLY)
            self._finalizer = weakref.finalize(self, _release_later, self.rdd)
            self._finalizer.atexit = False


# Persisted RDDs whose shards nobody can reach any more.
_unreachable: queue.SimpleQueue[RDD[Any]] = queue.SimpleQueue()
_lock = threading.Lock()
_releaser: threading.Thread | None = None


def _start_releaser() -> None:
    """Have a thread at hand that tells Spark what is not needed any more."""
    global _releaser
    with _lock:
        if _releaser is None or not _releaser.is_alive():
            _releaser = threading.Thread(target=_release, name="zoo-uncache", daemon=True)
            _releaser.start()


def _release_later(rdd: RDD[Any]) -> None:
    """Uncache an RDD soon, from another thread.

    Garbage is collected at any moment, also in the middle of a call to the JVM, and a second call
    on the same connection would break the first. To put into a simple queue is always safe.
    """
    rdd.is_cached = False
    _unreachable.put(rdd)


def _release() -> None:
    while True:
        rdd = _unreachable.get()
        # Spark may have stopped, or be stopping.
        with contextlib.suppress(Exception):
            if rdd.ctx._jsc is not None:
                rdd.unpersist()
        del rdd
