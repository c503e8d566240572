"""A round without Spark: a test writes the shards, a launcher starts the ranks on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from warm_launcher import WarmLauncher
from zoo.cluster.host import host_key
from zoo.cluster.ranks.launcher import Launcher
from zoo.cluster.ranks.messages import Message
from zoo.cluster.ranks.round import RoundHooks, launch
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.tensor_shard import TensorShard, TensorWriter
from zoo.orca.learn.driver.rounds import packed
from zoo.orca.learn.order import Order
from zoo.orca.learn.rank.body import train_rank

__all__ = ["run_round", "write_shards"]


def write_shards(
    folder: Path,
    plan: TensorPlan,
    parts: Sequence[Sequence[np.ndarray]],
    hosts: Sequence[str] = (host_key(),),
) -> tuple[TensorShard, ...]:
    """A shard for each part that has rows, on these hosts in turn.

    Args:
        folder: Where.
        plan: Their tensors, whose shapes are known.
        parts: The tensors of each part, of any dtype.
        hosts: Where the shards are said to be.
    """
    shards = []
    for number, tensors in enumerate(parts):
        if len(tensors[0]):
            place = folder / f"{number}-{uuid.uuid4().hex}"
            with TensorWriter(place, len(tensors)) as writer:
                known = zip(tensors, plan.tensors, strict=True)
                writer.append([np.ascontiguousarray(t, spec.dtype) for t, spec in known])
            host = hosts[number % len(hosts)]
            facts = (writer.rows, host, str(place), writer.bytes, writer.checksum)
            shards.append(TensorShard(number, *facts))
    return tuple(shards)


def run_round(order: Order, ranks: int, launcher: Launcher | None = None) -> bytes:
    """Train as ordered; the state at the end."""
    hooks = States()
    launch(
        packed(train_rank, order),
        launcher=launcher or WarmLauncher(),
        ranks=ranks,
        per_executor=ranks,
        hooks=hooks,
    )
    return hooks.last


class States(RoundHooks):
    """Keeps the last state that a rank handed over."""

    last = b""

    def on_report(self, message: Message) -> None:
        self.last = bytes(message.payload) or self.last
