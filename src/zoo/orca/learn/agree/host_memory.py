"""Ranks of one host add through memory that all of them map.

The order of additions depends on the ranks alone, so every rank ends with the same bits.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Protocol

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.orca.learn.agree.waiting import pause

__all__ = ["HostMemory", "Room"]

_log = logging.getLogger(__name__)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108
# A rank's flags are a cache line of counters: the last step of which it wrote its values, added
# its part, agreed with other hosts, copied the sums.
_LINE, _FLAGS = 64, 8
_WROTE, _ADDED, _AGREED, _COPIED = range(4)
# Above this, in all slots, every rank adds its own part and copies the rest; below, it is faster
# that each adds everything.
_WHOLE_BYTES = 512 * 1024
_SPINS = 200


class Network(Protocol):
    """Adds over one rank of each host."""

    def add(self) -> None:
        """Sum the arrays over the hosts."""


class Room:
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


class HostMemory:
    """Adds over the ranks of one host, and lets its first rank add over the network."""

    def __init__(
        self, member: Member, room: Room, arrays: Sequence[np.ndarray], *, led: bool
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

    def add(self, arrays: Sequence[np.ndarray], net: Network | None) -> None:
        """Replace the arrays by their sums; every rank of every host must call this."""
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

    def _add_parts(self, arrays: Sequence[np.ndarray], net: Network | None) -> None:
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
                pause(self._member, since, crowded=not self._spins)
        self._fence()

    def _fence(self) -> None:
        # Processors other than x86 may show a flag before the values that it stands for, and read
        # values before the flag. Nothing passes a release and the acquire after it, in either
        # direction; an acquire and a release, the other way round, would let things in between.
        self._lock.release()
        self._lock.acquire()


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
