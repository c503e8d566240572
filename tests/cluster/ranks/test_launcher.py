"""Running a function on ranks: the same on every launcher, and every way in which it can fail."""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import Launcher, launcher_for
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Message, Peer
from zoo.cluster.ranks.round import RoundHooks, launch
from zoo.errors import InputError, RankError, RankLostError, SlotsError
from zoo.orca.learn.agree.collective import collective_for

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("warm_launcher")

Result = tuple[bytes, dict[str, Any]]
WAITS = ["share", "all_reduce"]


class OddError(Exception):
    """An error that the usual way of unpickling cannot make again."""

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"code {code} at {place}")
        self.code = code


class LockedError(Exception):
    """An error that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@pytest.fixture(params=["processes", pytest.param("spark", marks=pytest.mark.spark)])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    if request.param == "spark":
        request.getfixturevalue("spark")
        return launcher_for("spark")
    return WarmLauncher()


class Hooks(RoundHooks):
    """Calls the functions that it is given."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        vars(self).update(calls)


def run(
    launcher: Launcher, body: Callable[[Member], Result], ranks: int = 2, **how: Any
) -> list[Message]:
    calls = {name: how.pop(name) for name in list(how) if name in vars(RoundHooks)}
    hooks = Hooks(**calls)
    return launch(
        pickled(body, "a body"),
        launcher=launcher, ranks=ranks, per_executor=ranks, hooks=hooks, **how,
    )  # fmt: skip


def wait_in(member: Member, way: str) -> None:
    """Wait for the other ranks, which do not come."""
    if way == "share":
        member.share(0)
        return
    collective = collective_for(member, [np.zeros(3)])
    if member.rank == 0:
        collective.all_reduce()


# What is the same everywhere


def test_results_come_in_order_of_rank(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        time.sleep(0.1 * (1 - member.rank))
        return b"result %d" % member.rank, {"size": member.size}

    results = run(launcher, body)
    assert [r.payload for r in results] == [b"result 0", b"result 1"]
    assert [r.rank for r in results] == [0, 1]
    assert all(r.body == {"size": 2} for r in results)


def test_driver_sees_the_world_and_progress(launcher: Launcher) -> None:
    worlds: list[Peer] = []
    steps: list[tuple[int, int]] = []

    def body(member: Member) -> Result:
        for step in range(3):
            member.report({"step": step})
        return b"", {}

    run(
        launcher,
        body,
        on_world=worlds.extend,
        on_report=lambda m: steps.append((m.rank, m.body["step"])),
    )
    assert [p.rank for p in worlds] == [0, 1]
    assert len({p.pid for p in worlds}) == 2
    assert [step for rank, step in steps if rank == 1] == [0, 1, 2]


def test_world_may_be_refused(launcher: Launcher) -> None:
    def refuse(world: Any) -> None:
        raise InputError("another world", "this one", "Start anew.")

    with pytest.raises(InputError, match="another world"):
        run(launcher, lambda member: (b"%r" % member.share(1), {}), on_world=refuse)


def test_hundred_megabytes_pass(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        return bytes(50_000_000) + bytes([member.rank]) * 50_000_000, {}

    results = run(launcher, body)
    assert [len(r.payload) for r in results] == [100_000_000, 100_000_000]
    assert [r.payload[-1] for r in results] == [0, 1]


# Errors of ranks


@pytest.mark.parametrize("way", WAITS)
def test_first_error_reaches_the_driver(launcher: Launcher, way: str) -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            if way == "all_reduce":
                collective_for(member, [np.zeros(3)])
            raise KeyError("boom")
        wait_in(member, way)
        return b"", {}

    with pytest.raises(KeyError, match="boom") as caught:
        run(launcher, body)
    note = caught.value.__notes__[0]
    assert "Raised by rank 1 on " in note
    assert 'raise KeyError("boom")' in note


@pytest.mark.parametrize(
    "make",
    [
        lambda: InputError("a", "b", "c"),
        lambda: OddError(7, place="here"),
        lambda: LockedError("locked"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        lambda: FileNotFoundError(2, "no such file", "x.csv"),
    ],
    ids=["ours", "odd constructor", "not picklable", "built in", "with a file"],
)
def test_error_keeps_type_and_message(make: Callable[[], Exception]) -> None:
    def body(member: Member) -> Result:
        raise make()

    with pytest.raises(type(make())) as caught:
        run(WarmLauncher(), body, 1)
    assert type(caught.value) is type(make())
    assert str(caught.value) == str(make())


def test_what_the_error_carries_comes_along() -> None:
    def body(member: Member) -> Result:
        raise OddError(7, place="here")

    with pytest.raises(OddError) as caught:
        run(WarmLauncher(), body, 1)
    assert caught.value.code == 7


def test_exit_of_a_rank_is_not_the_drivers(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        sys.exit(3)

    with pytest.raises(RankError, match="SystemExit: 3 from rank") as caught:
        run(launcher, body)
    assert not isinstance(caught.value, RankLostError)


def test_result_that_cannot_be_told_is_an_error() -> None:
    with pytest.raises(TypeError, match="JSON"):
        run(WarmLauncher(), lambda member: (b"", {"facts": object()}), 1)


def test_body_that_cannot_be_pickled_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(InputError, match="a body that can be sent"):
        pickled(lambda member: lock, "a body")


# Ranks that are lost


@pytest.mark.parametrize("way", WAITS)
@pytest.mark.parametrize("death", ["killed", "frozen, then killed", "exit"])
def test_lost_rank_is_named_soon(launcher: Launcher, way: str, death: str) -> None:
    def body(member: Member) -> Result:
        if member.rank == 0:
            wait_in(member, way)
        if way == "all_reduce":
            collective_for(member, [np.zeros(3)])
        if death == "exit":
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP if "frozen" in death else signal.SIGKILL)
        return b"", {}

    worlds: list[Peer] = []

    def watch(world: Any) -> None:
        worlds.extend(world)
        if "frozen" in death:
            threading.Timer(0.7, os.kill, (world[1].pid, signal.SIGKILL)).start()

    start = time.monotonic()
    with pytest.raises(RankLostError, match=r"rank 1 on .* \(process \d+\) was lost") as caught:
        run(launcher, body, on_world=watch)
    # Three seconds on an idle machine; tests may run on a busy one.
    assert time.monotonic() - start < 10.0
    assert str(worlds[1].pid) in str(caught.value)


def test_children_of_a_dead_rank_do_not_hide_its_death() -> None:
    def body(member: Member) -> Result:
        if member.rank == 0:
            member.share(0)
        if os.fork() == 0:
            time.sleep(8)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
        return b"", {}

    start = time.monotonic()
    with pytest.raises(RankError, match="lost"):
        run(WarmLauncher(), body)
    assert time.monotonic() - start < 6.0


def test_rank_that_ignores_the_stop_is_interrupted(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            raise ValueError("stop all")
        while True:
            with contextlib.suppress(Exception):  # what users do
                time.sleep(600)

    worlds: list[Peer] = []
    start = time.monotonic()
    with pytest.raises(ValueError, match="stop all"):
        run(launcher, body, on_world=worlds.extend)
    assert time.monotonic() - start < 8.0
    # A worker of Spark has ended its task by itself, and lives on for the next one.
    assert psutil.pid_exists(worlds[0].pid) is not isinstance(launcher, LocalLauncher)


def test_rank_that_resists_is_ended(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            member.share(0)
            raise ValueError("stop all")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        member.share(0)
        time.sleep(600)
        return b"", {}

    worlds: list[Peer] = []
    with pytest.raises(ValueError, match="stop all"):
        run(launcher, body, on_world=worlds.extend)
    await_true(lambda: not psutil.pid_exists(worlds[0].pid))


# Slots


@pytest.mark.spark
def test_more_ranks_than_slots_is_refused_at_once(spark: Any) -> None:
    launcher = launcher_for("spark")
    slots = launcher.places()[1]
    with pytest.raises(SlotsError, match=f"{slots + 1} task slots.* 1 executors of {slots} slots"):
        run(launcher, lambda member: (b"", {}), slots + 1)


@pytest.mark.spark
def test_slots_that_others_use_are_waited_for(
    spark: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    launcher, context = launcher_for("spark"), spark.sparkContext
    slots = launcher.places()[1]
    run(launcher, lambda member: (b"", {}), slots)  # a rank starts at once from now on
    over = tmp_path / "over"

    def hold(number: int) -> None:
        (tmp_path / str(number)).touch()
        await_true(over.exists, 60.0)

    busy = context.parallelize(range(slots - 1), slots - 1)
    other = threading.Thread(target=busy.foreach, args=(hold,))
    other.start()
    await_true(lambda: len(list(tmp_path.iterdir())) == slots - 1, 60.0)
    with caplog.at_level(logging.WARNING), pytest.raises(SlotsError, match="2 free .* received 1"):
        run(launcher, lambda member: (b"", {}), timeout_s=3.5)
    assert "waiting for task slots: 1 of 2 ranks are here" in caplog.text
    over.touch()
    other.join()
    assert run(launcher, lambda member: (b"fine", {}))[0].payload == b"fine"


# Nothing is left


def facts_of_process() -> dict[str, Any]:
    import threading

    return {
        "pid": os.getpid(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "signal": str(signal.getsignal(signal.SIGUSR1)),
        "environment": sorted(os.environ),
    }


@pytest.mark.spark
def test_workers_of_spark_are_left_as_they_were(spark: Any) -> None:
    def look(_: Any) -> list[dict[str, Any]]:
        time.sleep(0.3)  # so that each worker gets one
        return [facts_of_process()]

    def body(member: Member) -> Result:
        collective = collective_for(member, [np.zeros(3)])
        collective.all_reduce()
        collective.close()
        return b"", {}

    def workers() -> dict[int, dict[str, Any]]:
        found = spark.sparkContext.parallelize(range(slots), slots).mapPartitions(look).collect()
        return {facts["pid"]: facts for facts in found}

    launcher = launcher_for("spark")
    slots = launcher.places()[1]
    run(launcher, body, slots)
    before = workers()
    for _ in range(5):
        run(launcher, body, slots)
    after = workers()
    assert len(before) == slots
    assert after == before


@pytest.mark.slow
def test_driver_is_left_as_it_was(launcher: Launcher) -> None:
    def body(member: Member) -> Result:
        collective = collective_for(member, [np.zeros(3)])
        collective.all_reduce()
        if member.rank == 1 and member.peers[0].pid % 2:
            raise ValueError("odd")
        return json.dumps(os.getpid()).encode(), {}

    def once() -> None:
        with contextlib.suppress(ValueError):
            run(launcher, body)

    for _ in range(2):
        once()
    before = (len(os.listdir("/proc/self/fd")), set(threading.enumerate()), zoo_files())
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    for _ in range(20):
        once()
    # Some are of the Spark that other tests of this process use. A leak has one for each time.
    assert len(os.listdir("/proc/self/fd")) < before[0] + 10
    assert set(threading.enumerate()) <= before[1]
    assert zoo_files() <= before[2]
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= children


def zoo_files() -> set[str]:
    return {entry.name for entry in os.scandir("/dev/shm") if "zoo" in entry.name}


def await_true(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
