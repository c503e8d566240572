"""Sums over ranks: exact, the same bits everywhere, whatever the way they take."""

import gc
import hashlib
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from pyspark import cloudpickle

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.errors import RankError
from zoo.orca.learn.agree.collective import collective_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SMALL, LARGE = 1000, 300_000
pytestmark = pytest.mark.usefixtures("warm_launcher")

WAYS = ["memory", "network", "two hosts"]


def run(
    body: Callable[[Member], dict[str, Any]], ranks: int, way: str = "memory"
) -> list[dict[str, Any]]:
    def whole(member: Member) -> tuple[bytes, dict[str, Any]]:
        return b"", body(member)

    launcher = WarmLauncher(*(("one", "other") if way == "two hosts" else ()))
    results = launch(pickled(whole, "it"), launcher=launcher, ranks=ranks, per_executor=ranks)
    return [r.body for r in results]


def fill(arrays: list[np.ndarray], rank: int, step: int) -> None:
    for k, array in enumerate(arrays):
        random = np.random.default_rng([rank, step, k])
        array[:] = random.integers(-1000, 1000, array.size) / 8  # sums of these are exact


def made(sizes: list[int]) -> list[np.ndarray]:
    """Arrays of both types in turn."""
    return [np.zeros(n, (np.float64, np.float32)[k % 2]) for k, n in enumerate(sizes)]


# Sums


@pytest.mark.parametrize(
    ("ranks", "way"),
    [(1, "memory"), (1, "network"), *((n, way) for n in (2, 3, 4) for way in WAYS)],
)
def test_sums_are_exact(ranks: int, way: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        wrong = 0
        for sizes in ([1], [6, SMALL], [1, LARGE], [LARGE, 1, SMALL, LARGE]):
            arrays, other = made(sizes), made(sizes)
            collective = collective_for(member, arrays, share_memory=way != "network")
            for step in range(5):
                fill(arrays, member.rank, step)
                collective.all_reduce()
                expected = made(sizes)
                for rank in range(member.size):
                    fill(other, rank, step)
                    for total, array in zip(expected, other, strict=True):
                        total += array
                wrong += sum(not np.array_equal(*p) for p in zip(arrays, expected, strict=True))
            collective.close()
        return {"wrong": wrong, "neighbours": len(member.neighbours)}

    facts = run(body, ranks, way)
    assert [f["wrong"] for f in facts] == [0] * ranks
    if way == "two hosts":
        assert [f["neighbours"] for f in facts] == {2: [1, 1], 3: [2, 2, 1], 4: [2] * 4}[ranks]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_all_ranks_end_with_the_same_bits(size: int, way: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        arrays = made([6, size])
        collective = collective_for(member, arrays, share_memory=way != "network")
        digest = hashlib.sha256()
        for step in range(10):
            for k, array in enumerate(arrays):
                array[:] = np.random.default_rng([member.rank, step, k]).normal(size=array.size)
            collective.all_reduce()
            for array in arrays:
                digest.update(array.tobytes())
        collective.close()
        return {"bits": digest.hexdigest()}

    assert len({f["bits"] for f in run(body, 4, way)}) == 1


def test_whole_numbers_stay_exact_on_the_network() -> None:
    def body(member: Member) -> dict[str, Any]:
        arrays = [np.full(2, 2**60 + 1), np.ones(3), np.ones(3, np.float32)]
        collective = collective_for(member, arrays, share_memory=False)
        collective.all_reduce()
        return {"sums": [a.tolist() for a in arrays]}

    facts = run(body, 2)
    assert facts[0] == facts[1] == {"sums": [[2**61 + 2] * 2, [2.0] * 3, [2.0] * 3]}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_ranks_that_lag_change_nothing(size: int) -> None:
    def body(member: Member) -> dict[str, Any]:
        array = np.zeros(size)
        collective = collective_for(member, [array])
        random, wrong = np.random.default_rng(member.rank), 0
        for step in range(300):
            array[:] = step * (member.rank + 1)
            if random.random() < 0.05:
                time.sleep(random.random() * 0.01)
            collective.all_reduce()
            wrong += int(np.any(array != step * 6))
        return {"wrong": wrong}

    assert [f["wrong"] for f in run(body, 3)] == [0, 0, 0]


# Memory, files and ports


def listening(pid: int) -> list[str]:
    connections = psutil.Process(pid).net_connections()
    return [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("way", WAYS)
def test_ranks_listen_on_loopback_only(way: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        collective = collective_for(member, [np.zeros(3)], share_memory=way != "network")
        collective.all_reduce()
        member.share(0)
        found = listening(os.getpid())
        member.share(0)
        collective.close()
        return {"listening": found}

    facts = run(body, 2, way)
    addresses = {ip for f in facts for ip in f["listening"]}
    assert addresses == (set() if way == "memory" else {"127.0.0.1"})


def mapped_from(member: Member) -> str:
    """Where the memory of the ranks is: folder of the mapped file, or nothing."""
    with open(f"/proc/{os.getpid()}/maps") as maps:
        lines = [line.split(maxsplit=5)[5] for line in maps if "(deleted)" in line]
    return next(
        (line.rpartition("/")[0] for line in lines if line.startswith(("/dev/shm", "/tmp"))), ""
    )


@pytest.mark.parametrize("obstacle", ["none", "small shared memory", "no room at all"])
def test_memory_comes_from_where_there_is_room(obstacle: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        if obstacle == "small shared memory":
            real = os.statvfs
            os.statvfs = lambda p: (
                SimpleNamespace(f_bavail=1, f_frsize=4096) if p == "/dev/shm" else real(p)
            )
        if obstacle == "no room at all":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        array = np.ones(LARGE)
        collective = collective_for(member, [array])
        collective.all_reduce()
        return {"right": bool(np.all(array == 2)), "from": mapped_from(member)}

    facts = run(body, 2)
    folder = {
        "none": "/dev/shm",
        "small shared memory": tempfile.gettempdir(),
        "no room at all": "",
    }
    assert facts == [{"right": True, "from": folder[obstacle]}] * 2


def test_nothing_is_left_in_a_process_that_goes_on() -> None:
    def body(member: Member) -> dict[str, Any]:
        def state() -> tuple[int, int, str]:
            gc.collect()
            return len(os.listdir("/proc/self/fd")), threading.active_count(), mapped_from(member)

        def once() -> None:
            for share_memory in (True, False):
                collective = collective_for(member, [np.ones(LARGE)], share_memory=share_memory)
                collective.all_reduce()
                member.share(0)
                collective.close()

        once()
        before = state()
        for _ in range(5):
            once()
        return {"before": before, "after": state()}

    for facts in run(body, 2):
        assert facts["after"] == facts["before"]
        assert facts["after"][2] == ""


# Ends


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_error_of_one_ends_the_wait_of_others(size: int, way: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        collective = collective_for(member, [np.zeros(size)], share_memory=way != "network")
        collective.all_reduce()
        if member.rank == 2:
            time.sleep(0.2)
            raise KeyError("boom")
        collective.all_reduce()
        return {}

    start = time.monotonic()
    with pytest.raises(KeyError, match="boom"):
        run(body, 4, way)
    assert time.monotonic() - start < 30.0


@pytest.mark.parametrize("way", WAYS)
def test_death_of_one_ends_the_wait_of_others(way: str) -> None:
    def body(member: Member) -> dict[str, Any]:
        collective = collective_for(member, [np.zeros(LARGE)], share_memory=way != "network")
        for _ in range(10):
            collective.all_reduce()
            if member.rank == 0:
                os.kill(os.getpid(), 9)
        return {}

    with pytest.raises(RankError, match="rank 0 on"):
        run(body, 4, way)
