"""Find the state from which training goes on, and make sure that the data is the same."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.errors import InputError
from zoo.orca.data.tensors.tensor_shard import TensorShard
from zoo.orca.learn.driver.snapshots import SnapshotError, SnapshotStore, find_checkpoint
from zoo.orca.learn.framework import State

__all__ = ["data_facts", "newest_state", "read_checkpoint", "require_same_data"]

_log = logging.getLogger(__name__)


def newest_state(
    store: SnapshotStore, read: Callable[[bytes], State], *, between_epochs: bool = False
) -> State | None:
    """The newest state that is whole, None without one; what is skipped is logged.

    Args:
        store: Where to look.
        read: Of the framework.
        between_epochs: Pass over those that were taken inside an epoch.
    """
    if not between_epochs:
        found = store.newest()
        if found is None:
            _log.info("no snapshot to resume from: beginning from scratch")
            return None
        snapshot, blob = found
        _log.info("resuming from %s", snapshot.place)
        return read(blob)
    for snapshot in store.candidates():
        try:
            state = read(snapshot.read())
        except (SnapshotError, OSError) as exc:
            _log.warning("skipped the snapshot %s: %s", snapshot.place, exc)
            continue
        if not state.position.step:
            _log.info("resuming from %s", snapshot.place)
            return state
    _log.info("no snapshot between two epochs to resume from: beginning from scratch")
    return None


def read_checkpoint(path: str, version: int | None, prefix: str | None) -> bytes:
    """The content of the snapshot that a program means; see `find_checkpoint`.

    Raises:
        InputError: None of them is whole.
    """
    faults = []
    for snapshot in find_checkpoint(path, version, prefix):
        try:
            return snapshot.read()
        except (SnapshotError, OSError) as exc:
            _log.warning("skipped the snapshot %s: %s", snapshot.place, exc)
            faults.append(str(exc))
    raise InputError(
        f"a whole snapshot in {path!r}", "; ".join(faults), "Train again, or use an older copy."
    )


def data_facts(shards: Sequence[TensorShard], batch_size: int, seed: int | None) -> dict[str, Any]:
    """What has to be the same so that an epoch can go on in its middle.

    Args:
        shards: The training data; empty for loaders.
        batch_size: Rows of a step over all ranks.
        seed: Of the order.
    """
    return {
        "rows": sum(s.rows for s in shards),
        "partitions": len(shards),
        "layout": zlib.crc32(repr([s.rows for s in shards]).encode()),
        "content": zlib.crc32(repr([s.checksum for s in shards]).encode()),
        "batch_size": batch_size,
        "seed": seed,
    }


_NAMES = {
    "layout": "sizes of partitions",
    "content": "content of partitions",
    "seed": "seed of the order",
}


def require_same_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on inside an epoch with other data: rows would be used twice, or not at all.

    Raises:
        InputError: Something differs.
    """
    other = [name for name in now if before.get(name) != now[name]]
    if not other:
        return
    shown = ", ".join(
        f"another {_NAMES[n]}"
        if n in ("layout", "content")
        else f"{_NAMES.get(n, n)} {now[n]} instead of {before.get(n)}"
        for n in other
    )
    raise InputError(
        "the data with which the epoch was begun, so that each row is used once",
        shown,
        "Use the same data, partitions, batch_size and seed, or resume='epoch' to go back to the "
        "last snapshot between two epochs.",
    )
