"""Rows that lie in shards, and how long the files of these stay."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from zoo.cluster.host import host_key, scratch_folders
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.rows import Job, Rows
from zoo.orca.data.tensors.tensor_shard import Place, TensorShard

__all__ = ["Holding", "Ingested", "remove_named", "shard_name", "sweep"]


class _Found(NamedTuple):
    host: str
    root: Path
    name: str


class Holding:
    """The files of some rows: they stay until the last one who uses them leaves.

    Several fits may share the shards of a persisted frame, and each may have lost shards made
    again, so files are remembered from all of them.

    Args:
        rows: What the files were written from.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self._users, self._lock = rows, 1, threading.Lock()
        self._found: set[_Found] = set()

    def add(self, shards: Iterable[TensorShard]) -> None:
        """Take in the places of shards and of their copies."""
        places = [p for s in shards for p in (Place(s.host, s.path), s.copy) if p and p.path]
        found = {_Found(p.host, Path(p.path).parent, shard_name(p.path)) for p in places}
        with self._lock:
            self._found |= found

    def join(self) -> bool:
        """Use the files as well; False when they are being removed."""
        with self._lock:
            self._users += bool(self._users)
            return self._users > 0

    def leave(self) -> None:
        """Use them no more. The last one removes them: here at once, on other hosts soon."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if not last:
            return
        for found in self._found:
            if found.host == host_key():
                remove_named(found.root, found.name)
        far = frozenset(found.name for found in self._found if found.host != host_key())
        if far:
            # Executors may be busy for hours; the end of a fit does not wait for them.
            threading.Thread(
                target=sweep, args=(self._rows, far), name="zoo-sweep", daemon=True
            ).start()


@dataclass(frozen=True)
class Ingested:
    """Rows as shards on the disks of the executors.

    Attributes:
        plan: The tensors, shapes and dtypes known.
        shards: One for each partition that has rows.
        seconds: What the job took.
        application: What they end with; see `Rows`.
        job: Writes shards again.
        holding: Their files.
    """

    plan: TensorPlan
    shards: tuple[TensorShard, ...]
    seconds: float
    application: str
    job: Job = field(repr=False, compare=False)
    holding: Holding = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return sum(s.rows for s in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shards on disk."""
        return sum(s.bytes for s in self.shards)

    def moved(self, shards: tuple[TensorShard, ...]) -> Ingested:
        """The same rows with other places of their shards."""
        self.holding.add(shards)
        return replace(self, shards=shards)

    def release(self) -> None:
        """Use the shards no more. They are removed, unless they are kept or others use them."""
        self.holding.leave()


def shard_name(path: str) -> str:
    """What the files of one job have in common: a partition and an attempt follow it."""
    return Path(path).name.rsplit("-", 2)[0]


def remove_named(root: Path, name: str) -> None:
    """All of a name, so also what copies of a task wrote whose result was not taken."""
    for path in root.glob(f"{name}-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep(rows: Rows, names: Iterable[str]) -> set[str]:
    """Remove what tasks wrote under these names, wherever they ran.

    Returns:
        The scratch folders of executors on this host.
    """
    wanted = tuple(names)

    def visit() -> tuple[str, list[str]]:
        roots = scratch_folders()
        for root in roots:
            for name in wanted:
                remove_named(root, name)
        return host_key(), list(map(str, roots))

    places = rows.everywhere(visit)
    return {root for host, roots in places if host == host_key() for root in roots}
