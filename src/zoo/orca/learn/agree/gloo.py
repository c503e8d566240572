"""One rank of each host adds over the network, with gloo."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import LostPeerError
from zoo.errors import load_extra
from zoo.orca.learn.agree.waiting import await_word, pause

__all__ = ["Gloo"]

# What costs less to send than one more message.
_JOIN_BYTES = 256 * 1024
_CONNECT_S = 60.0


class Gloo:
    """Adds over one rank of each host, with gloo."""

    def __init__(
        self, member: Member, heads: list[int], place: tuple[str, int], server: socket.socket | None
    ) -> None:
        dist = load_extra("torch.distributed", "torch")
        self._member = member
        self._store = dist.TCPStore(
            *place, len(heads), server is not None, timedelta(seconds=_CONNECT_S),
            wait_for_workers=False, master_listen_fd=server.detach() if server else None,
        )  # fmt: skip
        options = dist.ProcessGroupGloo._Options()
        # The address that the driver sees, and no other: gloo would listen on all.
        device = dist.ProcessGroupGloo.create_device(hostname=member.arrival.address)
        options._devices = [device]
        options._timeout = timedelta(hours=1)  # the driver knows sooner when a rank is gone
        self._group: Any = dist.ProcessGroupGloo(
            self._store, heads.index(member.rank), len(heads), options
        )

    @classmethod
    def join(cls, member: Member, heads: list[int]) -> Gloo | None:
        """Connect the heads; every rank must call this. None for a rank that is no head."""
        server, place = None, None
        if member.rank == heads[0]:
            here = member.arrival.address
            family = socket.AF_INET6 if ":" in here else socket.AF_INET
            server = socket.create_server((here, 0), family=family)
            place = (here, server.getsockname()[1])
        place = member.share(place)[heads[0]]
        if member.rank not in heads:
            return None
        try:
            return cls(member, heads, place, server)
        except RuntimeError as exc:
            await_word(member)
            raise LostPeerError(f"ranks could not connect to each other: {exc}") from exc

    def use(self, arrays: Sequence[np.ndarray]) -> None:
        """Take the arrays that `add` sums."""
        torch = load_extra("torch", "torch")
        # Latency is what small arrays cost, so they travel as one.
        small = [a for a in arrays if a.dtype.kind == "f" and a.nbytes <= _JOIN_BYTES]
        self._small = small if len(small) > 1 else []
        self._joined = np.empty(sum(a.size for a in self._small))
        alone = [a for a in arrays if not any(a is s for s in self._small)]
        joined = [self._joined] if self._small else []
        self._tensors = [torch.from_numpy(a) for a in [*joined, *alone]]

    def add(self) -> None:
        """Sum the arrays over the hosts."""
        if self._small:
            np.concatenate(self._small, out=self._joined)
        works = [self._group.allreduce([tensor]) for tensor in self._tensors]
        try:
            for work in works:
                since = time.perf_counter()
                while not work.is_completed():
                    pause(self._member, since, crowded=True)
                work.wait()
        except RuntimeError as exc:
            await_word(self._member)
            raise LostPeerError(f"the network between ranks failed: {exc}") from exc
        at = 0
        for array in self._small:
            array[:] = self._joined[at : at + array.size]
            at += array.size

    def close(self) -> None:
        """Let go of the connections."""
        self._group = self._store = None
