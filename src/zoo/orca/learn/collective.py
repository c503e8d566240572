"""How ranks agree: arrays summed over all of them, in two levels.

Ranks of one host add through memory that all of them map; one rank of each host then adds over
the network. The order of additions depends on the ranks alone and every rank ends with the same
bits. Nobody waits for ever: a wait spins for a moment, then sleeps, and ends when the driver says
that the round is over, which it does as soon as any rank is gone.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import IO, Any

import numpy as np

from zoo.cluster.meeting import LostPeerError, Member
from zoo.errors import load_extra

__all__ = ["Collective"]

_log = logging.getLogger(__name__)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108
# A rank's flags are a cache line of counters: the last step of which it wrote its values, added
# its part, agreed with other hosts, copied the sums.
_LINE, _FLAGS = 64, 8
_WROTE, _ADDED, _AGREED, _COPIED = range(4)
# Above this, in all slots, every rank adds its own part and copies the rest; below, it is faster
# that each adds everything.
_WHOLE_BYTES = 512 * 1024
# What costs less to send than one more message.
_JOIN_BYTES = 256 * 1024
_SPINS = 200
# While all have a core, another turn of the processor comes at once. Where ranks share cores, and
# where gloo's threads do the work, whoever yields is soon back and takes it from them: a nap.
_YIELD_S, _SHORT_NAP_S, _NAP_S, _LONG_NAP_S = 2e-3, 20e-6, 100e-6, 1e-3
_CONNECT_S, _WORD_S = 60.0, 5.0


class Collective:
    """Sums arrays over all ranks, in place. Every rank makes it at the same point.

    Args:
        member: This rank.
        arrays: 1-D C-contiguous arrays, the same dtypes and sizes on every rank. They are the
            buffers: fill them, call `all_reduce`, read the sums.
        share_memory: False lets even ranks of one host add over the network.
    """

    def __init__(
        self, member: Member, arrays: Sequence[np.ndarray], *, share_memory: bool = True
    ) -> None:
        self._arrays = list(arrays)
        self._memory: _HostMemory | None = None
        self._net: _Network | None = None
        heads = list(range(member.size))
        room = _Room(member, arrays)
        if share_memory and member.size > 1 and room.open():
            heads = sorted({p.host: p.rank for p in reversed(member.peers)}.values())
            if room.map is not None:
                self._memory = _HostMemory(member, room, arrays, led=len(heads) > 1)
        if len(heads) > 1:
            self._net = _Network.join(member, heads)
        if self._net is not None:
            self._net.use(self._arrays if self._memory is None else self._memory.sums)

    def all_reduce(self) -> None:
        """Replace the arrays by their sums over all ranks.

        Raises:
            Stopped: The round ended while this rank waited.
        """
        if self._memory is not None:
            self._memory.add(self._arrays, self._net)
        elif self._net is not None:
            self._net.add()

    def close(self) -> None:
        """Let go of memory and connections."""
        self._memory = None
        if self._net is not None:
            self._net.close()


class _Room:
    """Memory that the ranks of each host map: a line of flags for each rank, then their slots."""

    def __init__(self, member: Member, arrays: Sequence[np.ndarray]) -> None:
        self._member, self.ranks = member, member.neighbours
        slots_bytes = len(self.ranks) * sum(_padded(a) for a in arrays)
        self.whole = slots_bytes <= _WHOLE_BYTES
        self.sets = 2 if self.whole else 1
        self._size = _LINE * len(self.ranks) + self.sets * slots_bytes
        self.map: mmap.mmap | None = None

    def open(self) -> bool:
        """Map it; every rank must call this. False when any rank of any host cannot."""
        leads = self._member.rank == self.ranks[0]
        file = _nameless_file(self._size) if leads and len(self.ranks) > 1 else None
        # It never has a name, so nothing is left whoever is killed when. Neighbours open it by
        # the descriptor of the process that has it.
        place = f"/proc/{os.getpid()}/fd/{file.fileno()}" if file is not None else ""
        place = self._member.share(place)[self.ranks[0]]
        fine = True
        try:
            if len(self.ranks) > 1:
                with open(place, "r+b") as same:
                    self.map = mmap.mmap(same.fileno(), self._size)
        except OSError as exc:
            _log.warning("ranks of this host add over the network: no shared memory (%s)", exc)
            fine = False
        fine = all(self._member.share(fine))
        if file is not None:
            file.close()
        return fine


class _HostMemory:
    """Adds over the ranks of one host, and lets its first rank add over the network."""

    def __init__(
        self, member: Member, room: _Room, arrays: Sequence[np.ndarray], *, led: bool
    ) -> None:
        assert room.map is not None
        self._member, self._size, self._led = member, len(room.ranks), led
        self._me, self._step = room.ranks.index(member.rank), 0
        # Plain loads and stores of eight bytes, which the processor never tears.
        self._flags = memoryview(room.map)[: _LINE * self._size].cast("q")
        self._whole = room.whole and not led
        at, self._slots = _LINE * self._size, []
        for _ in range(room.sets):
            slots = []
            for _ in range(self._size):
                views = []
                for a in arrays:
                    views.append(np.frombuffer(room.map, a.dtype, count=a.size, offset=at))
                    at += _padded(a)
                slots.append(views)
            self._slots.append(slots)
        self.sums: list[np.ndarray] = self._slots[0][0]
        self._spins = _SPINS if self._size <= len(os.sched_getaffinity(0)) else 0
        self._lock = threading.Lock()
        self._lock.acquire()

    def add(self, arrays: Sequence[np.ndarray], net: _Network | None) -> None:
        self._step += 1
        if self._whole:
            self._add_whole(arrays)
        else:
            self._add_parts(arrays, net)

    def _add_whole(self, arrays: Sequence[np.ndarray]) -> None:
        # Two sets of slots in turn: a rank writes step s + 2 only after all have written s + 1,
        # and so have read s.
        slots = self._slots[self._step & 1]
        self._write(slots, arrays)
        self._await(_WROTE)
        for k, array in enumerate(arrays):
            np.add(slots[0][k], slots[1][k], out=array)
            for other in slots[2:]:
                array += other[k]

    def _add_parts(self, arrays: Sequence[np.ndarray], net: _Network | None) -> None:
        slots = self._slots[0]
        self._await(_COPIED, before=1)
        self._write(slots, arrays)
        self._await(_WROTE)
        for k, total in enumerate(self.sums):
            low = self._me * total.size // self._size
            high = (self._me + 1) * total.size // self._size
            for other in slots[1:]:
                total[low:high] += other[k][low:high]
        self._raise_flag(_ADDED)
        if not self._led:
            self._await(_ADDED)
        elif net is not None:
            self._await(_ADDED)
            net.add()
            self._raise_flag(_AGREED)
        else:
            self._await_one(0, _AGREED, self._step)
        for total, array in zip(self.sums, arrays, strict=True):
            array[:] = total
        self._raise_flag(_COPIED)

    def _write(self, slots: list[list[np.ndarray]], arrays: Sequence[np.ndarray]) -> None:
        for view, array in zip(slots[self._me], arrays, strict=True):
            view[:] = array
        self._raise_flag(_WROTE)

    def _raise_flag(self, kind: int) -> None:
        self._fence()
        self._flags[self._me * _FLAGS + kind] = self._step

    def _await(self, kind: int, before: int = 0) -> None:
        for rank in range(self._size):
            self._await_one(rank, kind, self._step - before)

    def _await_one(self, rank: int, kind: int, goal: int) -> None:
        flags, place = self._flags, rank * _FLAGS + kind
        for _ in range(self._spins):
            if flags[place] >= goal:
                break
        else:
            since = time.perf_counter()
            while flags[place] < goal:
                _pause(self._member, since, crowded=not self._spins)
        self._fence()

    def _fence(self) -> None:
        # Processors other than x86 may show a flag before the values that it stands for, and read
        # values before the flag. Nothing passes a release and the acquire after it, in either
        # direction; an acquire and a release, the other way round, would let things in between.
        self._lock.release()
        self._lock.acquire()


class _Network:
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
    def join(cls, member: Member, heads: list[int]) -> _Network | None:
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
            _await_word(member)
            raise LostPeerError(f"ranks could not connect to each other: {exc}") from exc

    def use(self, arrays: Sequence[np.ndarray]) -> None:
        """Take the arrays that `add` sums."""
        import torch

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
                    _pause(self._member, since, crowded=True)
                work.wait()
        except RuntimeError as exc:
            _await_word(self._member)
            raise LostPeerError(f"the network between ranks failed: {exc}") from exc
        at = 0
        for array in self._small:
            array[:] = self._joined[at : at + array.size]
            at += array.size

    def close(self) -> None:
        self._group = self._store = None


def _await_word(member: Member) -> None:
    # A neighbour's end shows here first; the driver knows who and why.
    until = time.monotonic() + _WORD_S
    while time.monotonic() < until:
        member.check()
        time.sleep(_LONG_NAP_S)


def _pause(member: Member, since: float, *, crowded: bool) -> None:
    """Let others run: for a moment at once again, later after a nap.

    Args:
        member: This rank; raises when the round is over.
        since: When the wait began, by the performance counter.
        crowded: Others need this core to get ahead.
    """
    waited = time.perf_counter() - since
    if waited < _YIELD_S:
        if crowded:
            time.sleep(_SHORT_NAP_S)
        else:
            os.sched_yield()
        return
    member.check()
    time.sleep(_NAP_S if waited < 1.0 else _LONG_NAP_S)


def _padded(array: np.ndarray) -> int:
    """Its bytes, in whole cache lines: two ranks that write to one would slow each other."""
    return -(-array.nbytes // _LINE) * _LINE


def _nameless_file(size: int) -> IO[bytes] | None:
    """A file of that size without a name, in shared memory when it has room."""
    for folder in (_SHARED_MEMORY, tempfile.gettempdir()):
        try:
            room = os.statvfs(folder)
            if room.f_bavail * room.f_frsize < 2 * size:
                continue
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - for the caller to close
        except OSError:
            continue
        try:
            # Else a full disk ends the process that writes, without a word.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            file.close()
            continue
        return file
    return None
