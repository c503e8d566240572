"""Shards of rows that are held in memory as well: later fits use them again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.cluster.host import host_key
from zoo.orca.data.tensors.ingested import Ingested
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.rows import Rows
from zoo.orca.data.tensors.tensor_shard import is_whole

__all__ = ["KeptShards"]

_MOST = 8


@dataclass(frozen=True)
class _Entry:
    rows: Rows
    blocks: object
    plan: TensorPlan
    result: Ingested


class KeptShards:
    """A table of results, for all threads. It is one of the users of each of them.

    What it forgets is removed when the last fit that uses it ends.
    """

    def __init__(self) -> None:
        self._lock, self._entries = threading.RLock(), list[_Entry]()

    def find(self, rows: Rows, blocks: object, plan: TensorPlan) -> Ingested | None:
        """The shards of these rows and this plan, to be released by the caller; None without."""
        with self._lock:
            for entry in self._entries:
                if (entry.blocks, entry.plan) == (blocks, plan) and entry.rows.same(rows):
                    if _is_here(entry.result) and entry.result.holding.join():
                        return entry.result
                    self._drop(entry)
                    break
        return None

    def add(self, rows: Rows, blocks: object, plan: TensorPlan, result: Ingested) -> None:
        """Keep a result; those that were added long ago are forgotten."""
        with self._lock:
            if result.holding.join():
                self._entries.append(_Entry(rows, blocks, plan, result))
            for entry in self._entries[:-_MOST]:
                self._drop(entry)

    def update(self, result: Ingested) -> None:
        """Shards have new places."""
        with self._lock:
            for k, entry in enumerate(self._entries):
                if entry.result.holding is result.holding:
                    self._entries[k] = replace(entry, result=result)

    def forget(self, result: Ingested | None = None) -> None:
        """Forget one result, or all."""
        with self._lock:
            for entry in list(self._entries):
                if result is None or entry.result.holding is result.holding:
                    self._drop(entry)

    def drop_stale(self, application: str) -> None:
        """Forget rows that are held no more, and those of an application that has ended."""
        with self._lock:
            for entry in list(self._entries):
                if entry.result.application != application:
                    self._entries.remove(entry)  # its files went with it
                elif entry.rows.held_as() != entry.blocks:
                    self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        entry.result.holding.leave()


def _is_here(result: Ingested) -> bool:
    """Whether the shards of this host are there; those of others are looked at by the ranks."""
    here = [s for s in result.shards if s.host == host_key()]
    return all(is_whole(Path(s.path), s.bytes) for s in here)
