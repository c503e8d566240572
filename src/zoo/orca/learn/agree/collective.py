"""How ranks agree: arrays summed over all of them.

`collective_for` gives live ranks the way that suits them. Ranks of one host add through memory
that all of them map; one rank of each host then adds over a network of the table. The order of
additions depends on the ranks alone and every rank ends with the same bits. Nobody waits for ever:
a wait spins for a moment, then sleeps, and ends when the driver says that the round is over, which
it does as soon as any rank is gone.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.orca.learn.agree.host_memory import HostMemory, Room

__all__ = ["NETWORKS", "Collective", "collective_for"]

NETWORKS = {"gloo": "zoo.orca.learn.agree.gloo:Gloo"}


class Collective(Protocol):
    """Some arrays, and a way to sum them over all ranks."""

    def all_reduce(self) -> None:
        """Replace the arrays by their sums over all ranks.

        Raises:
            Stopped: The round ended while this rank waited.
        """

    def close(self) -> None:
        """Let go of memory and connections."""


def collective_for(
    member: Member,
    arrays: Sequence[np.ndarray],
    *,
    share_memory: bool = True,
    network: str = "gloo",
) -> Collective:
    """Make a collective; every rank makes it at the same point.

    Args:
        member: This rank.
        arrays: 1-D C-contiguous arrays, the same dtypes and sizes on every rank. They are the
            buffers: fill them, call `all_reduce`, read the sums.
        share_memory: False lets even ranks of one host add over the network.
        network: Between hosts, a name of `NETWORKS`.
    """
    return _TwoLevels(member, arrays, share_memory=share_memory, network=network)


class _TwoLevels:
    """First over the ranks of each host, then over the hosts."""

    def __init__(
        self, member: Member, arrays: Sequence[np.ndarray], *, share_memory: bool, network: str
    ) -> None:
        self._arrays = list(arrays)
        self._memory: HostMemory | None = None
        self._net: Any = None
        heads = list(range(member.size))
        room = Room(member, arrays)
        if share_memory and member.size > 1 and room.open():
            heads = sorted({p.host: p.rank for p in reversed(member.peers)}.values())
            if room.map is not None:
                self._memory = HostMemory(member, room, arrays, led=len(heads) > 1)
        if len(heads) > 1:
            module, _, kind = NETWORKS[network].partition(":")
            self._net = getattr(importlib.import_module(module), kind).join(member, heads)
        if self._net is not None:
            self._net.use(self._arrays if self._memory is None else self._memory.sums)

    def all_reduce(self) -> None:
        if self._memory is not None:
            self._memory.add(self._arrays, self._net)
        elif self._net is not None:
            self._net.add()

    def close(self) -> None:
        self._memory = None
        if self._net is not None:
            self._net.close()
