"""How ranks agree: arrays summed over all of them, in two levels.

Ranks of one host add through a file that all of them map; one rank of each host then adds over
the network. The order of additions depends on the ranks alone and every rank ends with the same
bits. Nobody waits for ever: a wait spins for a moment, then sleeps, and ends when the driver says
that the round is over, which it does as soon as any rank is gone.
"""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from zoo.cluster.meeting import Member

__all__ = ["Collective"]

_LINE = 64
# Above this every rank adds its own part and copies the rest; below, one exchange is faster.
_WHOLE_BYTES = 256 * 1024
_SPIN_S, _YIELD_S, _NAP_S = 20e-6, 2e-3, 100e-6


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
        self._member, self._arrays = member, list(arrays)
        host = member.neighbours if share_memory else [member.rank]
        leaders = {p.host: p.rank for p in reversed(member.peers)}
        heads = sorted(leaders.values()) if share_memory else list(range(member.size))
        self._host = _HostMemory(member, host, self._arrays) if share_memory else None
        self._net = _Network(member, heads) if len(heads) > 1 else None

    def all_reduce(self) -> None:
        """Replace the arrays by their sums over all ranks.

        Raises:
            Stopped: The round ended while this rank waited.
        """
        if self._host is None or self._host.alone:
            if self._net is not None:
                self._net.add(self._arrays)
        else:
            self._host.add(self._arrays, self._net)

    def close(self) -> None:
        """Let go of memory and connections."""
        if self._host is not None:
            self._host.close()
        if self._net is not None:
            self._net.close()


class _HostMemory:
    """Ranks of one host. The file: a line of flags for each rank, then the slots."""

    def __init__(self, member: Member, host: list[int], arrays: Sequence[np.ndarray]) -> None:
        self._member, self._size, self._me = member, len(host), host.index(member.rank)
        self.alone = len(host) == 1
        bytes_each = sum(-(-a.nbytes // _LINE) * _LINE for a in arrays)
        self._whole = bytes_each <= _WHOLE_BYTES
        slots = 2 if self._whole else 1
        total = _LINE * self._size + slots * self._size * bytes_each
        self._map = self._open(host, total)
        if self._map is None:
            return
        flags = np.frombuffer(self._map, np.int64, count=self._size * _LINE // 8)
        # Three counters a rank: wrote its values, added its part, copied the sums.
        self._flags = flags.reshape(self._size, _LINE // 8)[:, :3]
        at, self._slots = _LINE * self._size, []
        for _ in range(slots):
            ranks = []
            for _ in range(self._size):
                views = []
                for a in arrays:
                    views.append(np.frombuffer(self._map, a.dtype, count=a.size, offset=at))
                    at += -(-a.nbytes // _LINE) * _LINE
                ranks.append(views)
            self._slots.append(ranks)
        self._step = 0
        self._fence = threading.Lock()
        self._patient = self._size <= (os.cpu_count() or 1)

    def _open(self, host: list[int], size: int) -> mmap.mmap | None:
        """Map one file in all ranks. It has no name any more once all have it open."""
        path = ""
        if self._me == 0 and not self.alone:
            handle, path = tempfile.mkstemp(prefix="zoo-reduce-", dir=_memory_dir(size))
            try:
                os.posix_fallocate(handle, 0, size)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(handle)
        try:
            name = self._member.share(path)[host[0]]
            mapped = None
            if not self.alone:
                with Path(name).open("r+b") as file:
                    mapped = mmap.mmap(file.fileno(), size)
            self._member.share(True)
        finally:
            if path:
                os.unlink(path)
        return mapped

    def add(self, arrays: Sequence[np.ndarray], net: _Network | None) -> None:
        self._step += 1
        if net is not None or any(p.host != self._host_key for p in self._member.peers):
            self._led(arrays, net)
        elif self._whole:
            self._at_once(arrays)
        else:
            self._in_parts(arrays)

    @property
    def _host_key(self) -> str:
        return self._member.arrival.host

    def _at_once(self, arrays: Sequence[np.ndarray]) -> None:
        # Two sets of slots in turn: a rank writes step s + 2 only after all have written s + 1,
        # and so have read s.
        slots = self._slots[self._step & 1]
        self._write(slots, arrays)
        self._wait(0)
        for k, array in enumerate(arrays):
            np.add(slots[0][k], slots[1][k], out=array)
            for other in slots[2:]:
                array += other[k]

    def _in_parts(self, arrays: Sequence[np.ndarray]) -> None:
        slots = self._slots[0]
        self._wait(2, self._step - 1)
        self._write(slots, arrays)
        self._wait(0)
        for k, array in enumerate(arrays):
            low = self._me * array.size // self._size
            high = (self._me + 1) * array.size // self._size
            total = slots[0][k][low:high]
            for other in slots[1:]:
                total += other[k][low:high]
        self._raise_flag(1)
        self._wait(1)
        self._read(slots[0], arrays)

    def _led(self, arrays: Sequence[np.ndarray], net: _Network | None) -> None:
        """Several hosts: the first rank adds for the host, over the network, and hands out."""
        slots = self._slots[0]
        self._wait(2, self._step - 1)
        self._write(slots, arrays)
        if self._me == 0:
            self._wait(0)
            assert net is not None
            for k in range(len(arrays)):
                for other in slots[1:]:
                    slots[0][k][:] += other[k]
            net.add(slots[0])
            self._raise_flag(1)
        self._wait(1, only=0)
        self._read(slots[0], arrays)

    def _write(self, slots: list[list[np.ndarray]], arrays: Sequence[np.ndarray]) -> None:
        for view, array in zip(slots[self._me], arrays, strict=True):
            view[:] = array
        self._raise_flag(0)

    def _read(self, sums: list[np.ndarray], arrays: Sequence[np.ndarray]) -> None:
        for view, array in zip(sums, arrays, strict=True):
            array[:] = view
        self._raise_flag(2)

    def _raise_flag(self, kind: int) -> None:
        with self._fence:  # a full barrier: processors may show the flag before the values
            self._flags[self._me, kind] = self._step

    def _wait(self, kind: int, step: int | None = None, *, only: int | None = None) -> None:
        goal = self._step if step is None else step
        flags = self._flags[:, kind] if only is None else self._flags[only : only + 1, kind]
        start = time.perf_counter()
        while (flags < goal).any():
            waited = time.perf_counter() - start
            if waited > _YIELD_S:
                self._member.check()
                time.sleep(_NAP_S)
            elif waited > _SPIN_S or not self._patient:
                os.sched_yield()
        with self._fence:
            pass

    def close(self) -> None:
        # The views keep the map alive; the kernel frees it with the last of them.
        self._slots, self._map = [], None


class _Network:
    """One rank of each host, over gloo."""

    def __init__(self, member: Member, heads: list[int]) -> None:
        self._member, self._group = member, None
        here = member.arrival.address
        server, place = None, None
        if member.rank == heads[0]:
            server = socket.create_server((here, 0))
            place = [here, server.getsockname()[1]]
        place = member.share(place)[heads[0]]
        if member.rank not in heads:
            return
        import torch.distributed as dist

        master = server is not None
        self._store = dist.TCPStore(
            place[0], place[1], len(heads), master, timedelta(seconds=60), wait_for_workers=False,
            master_listen_fd=server.detach() if server is not None else None,
        )  # fmt: skip
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=here)]
        options._timeout = timedelta(minutes=10)
        self._group = dist.ProcessGroupGloo(
            self._store, heads.index(member.rank), len(heads), options
        )

    def add(self, arrays: Sequence[np.ndarray]) -> None:
        """Sum over the hosts. Latency is what small arrays cost, so they travel as one."""
        if len(arrays) > 1 and sum(a.nbytes for a in arrays) <= _WHOLE_BYTES:
            joined = np.concatenate([a.astype(np.float64, copy=False) for a in arrays])
            self._sum(joined)
            ends = np.cumsum([a.size for a in arrays])
            for array, end in zip(arrays, ends, strict=True):
                array[:] = joined[end - array.size : end]
            return
        for array in arrays:
            self._sum(array)

    def _sum(self, array: np.ndarray) -> None:
        import torch

        assert self._group is not None
        try:
            self._group.allreduce([torch.from_numpy(array)]).wait()
        except RuntimeError as exc:
            # A neighbour's end shows here first; the driver knows who and why.
            self._await_word()
            raise ConnectionError(f"the network between ranks failed: {exc}") from exc

    def _await_word(self) -> None:
        for _ in range(50):
            self._member.check()
            time.sleep(0.1)

    def close(self) -> None:
        self._group: Any = None
        self._store = None


def _memory_dir(size: int) -> str | None:
    """Shared memory when it has room, else the ordinary temporary directory."""
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108
    except OSError:
        return None
    return "/dev/shm" if room.f_bavail * room.f_frsize > 2 * size else None  # noqa: S108
