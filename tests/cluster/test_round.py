"""Rounds: how they begin with fewer, end for more, and what is handed over after a loss."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyspark import cloudpickle

from zoo.cluster import round as rounds
from zoo.cluster.launch import Job, pickled
from zoo.cluster.local import LocalLauncher
from zoo.cluster.meeting import Invitation, LostPeerError, Meeting, Member, Message, Stopped
from zoo.cluster.round import Crew, Ending, Round
from zoo.errors import RankError, SlotsError

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Result = tuple[bytes, dict[str, Any]]


class Fewer(LocalLauncher):
    """A cluster with room for so many processes; more come when `more` is called."""

    def __init__(self, room: int) -> None:
        self.room, self.jobs, self.invited = room, list[Job](), list[Any]()

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        self.invited.append((invitation, body))
        self.jobs.append(super().start(invitation, body, min(ranks, self.room)))
        return self.jobs[-1]

    def more(self) -> None:
        """Another process arrives."""
        self.jobs.append(super().start(*self.invited[-1], 1))

    def end(self) -> None:
        for job in self.jobs:
            job.end(grace_s=5.0)


def wake(pid: int) -> None:
    """Let a stopped process go on, unless it was ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def run(body: Callable[[Member], Result], most: int = 2, least: int = 1, **given: Any) -> Ending:
    launcher = given.pop("launcher", None) or LocalLauncher()
    crew = Crew(least, most, given.pop("per_executor", most), given.pop("timeout_s", 60.0))
    return Round(pickled(body, "a body"), launcher, crew, **given).run()


def size(member: Member) -> Result:
    return b"", {"size": member.size}


# How a round begins


def test_round_begins_with_fewer_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_PATIENCE_S", 2.0)
    ending = run(size, most=5, least=1, launcher=Fewer(2))
    assert [r.body["size"] for r in ending.results] == [2, 2]
    assert len(ending.world) == len(ending.results)
    assert ending.loss is None
    assert not ending.left


def test_round_waits_for_the_least(caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(SlotsError, match="2 free .* received 1"):
        run(size, most=3, least=2, launcher=Fewer(1), timeout_s=4.0)
    assert time.monotonic() - start < 10.0
    assert "waiting for task slots: 1 of 3 ranks are here" in caplog.text


def test_round_with_all_its_ranks_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_PATIENCE_S", 1000.0)
    assert len(run(size, most=2).results) == 2


# How it ends for more ranks


def until_asked(member: Member) -> Result:
    """Works until the ranks agree to leave."""
    while not any(member.share(member.asked_to_leave)):
        time.sleep(0.01)
    return b"", {"left": True}


def test_waiting_guest_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_PATIENCE_S", 0.1)
    launcher, asked = Fewer(1), list[tuple[int, int]]()

    def wants(ranks: int, could: int) -> bool:
        asked.append((ranks, could))
        return True

    ending = run(
        until_asked,
        launcher=launcher,
        per_executor=1,
        on_world=lambda _: launcher.more(),
        wants_change=wants,
    )
    launcher.end()
    assert asked == [(1, 2)]
    assert ending.left
    assert ending.loss is None


def test_round_goes_on_when_a_change_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_PATIENCE_S", 0.1)
    launcher, asked = Fewer(1), list[int]()

    def body(member: Member) -> Result:
        time.sleep(2.0)
        return b"", {"left": member.asked_to_leave}

    def wants(ranks: int, could: int) -> bool:
        asked.append(could)
        return False

    ending = run(
        body,
        launcher=launcher,
        per_executor=1,
        on_world=lambda _: launcher.more(),
        wants_change=wants,
    )
    launcher.end()
    assert set(asked) == {2}
    assert not ending.left


def test_full_round_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(member: Member) -> Result:
        time.sleep(0.7)
        return b"", {}

    asked = list[int]()
    run(body, most=1, wants_change=lambda *both: bool(asked.append(1)))
    assert asked == []


# What is handed over after a loss


def holds(
    iterations: list[int], *, after_offer: Callable[[Member], None] = lambda _: None
) -> Callable[[Member], Result]:
    """The last rank is killed; the others offer what they hold."""

    def body(member: Member) -> Result:
        member.share(0)
        try:
            if member.rank == member.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            member.share(1)
        except Stopped:
            assert member.wants_offers
            wanted = member.offer({"iteration": iterations[member.rank]})
            after_offer(member)
            if not wanted:
                raise
            return b"state of rank %d" % member.rank, {}
        return b"", {}

    return body


@pytest.mark.parametrize(("iterations", "rank"), [([3, 5], 1), ([5, 3], 0), ([4, 4], 0)])
def test_newest_survivor_hands_over_its_state(iterations: list[int], rank: int) -> None:
    ending = run(holds(iterations), most=3, keeps_state=True)
    assert isinstance(ending.loss, RankError)
    assert "rank 2 on" in str(ending.loss)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank %d" % rank
    assert len(ending.world) == 3
    assert ending.results == ()


def test_next_survivor_is_asked_when_the_newest_dies_too() -> None:
    def die(member: Member) -> None:
        if member.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    ending = run(holds([3, 5], after_offer=die), most=3, keeps_state=True)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank 0"


def test_survivor_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_OFFERS_S", 0.5)

    def body(member: Member) -> Result:
        if member.rank == 0:
            member.share(0)
            member.held = True
            while True:
                time.sleep(0.1)
        return holds([9, 4])(member)

    start = time.monotonic()
    ending = run(body, most=3, keeps_state=True)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank 1"
    assert time.monotonic() - start < 15.0


def test_without_survivors_nothing_is_kept() -> None:
    def body(member: Member) -> Result:
        member.share(0)
        os.kill(os.getpid(), signal.SIGKILL)
        return b"", {}

    ending = run(body, most=2, keeps_state=True)
    assert isinstance(ending.loss, RankError)
    assert ending.kept is None


def test_loss_after_the_last_state_is_none() -> None:
    def body(member: Member) -> Result:
        if member.rank == 0:
            member.hand_over(b"the end", {"last": True})
            member.share(0)
            os.kill(os.getpid(), signal.SIGKILL)
        member.share(0)
        return b"", {"rank": member.rank}

    states = list[Message]()
    ending = run(body, most=2, keeps_state=True, on_message=states.append)
    assert ending.loss is None
    assert [s.payload for s in states] == [b"the end"]
    assert [r.body["rank"] for r in ending.results] == [1]


def test_broken_connection_between_ranks_is_a_loss() -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            raise LostPeerError("the other rank went away")
        try:
            member.share(0)
        except Stopped:
            if member.offer({"iteration": 7}):
                return b"seven", {}
            raise
        return b"", {}

    ending = run(body, most=2, keeps_state=True)
    assert "lost its connection" in str(ending.loss)
    assert ending.kept is not None
    assert ending.kept.payload == b"seven"


def test_connection_error_of_the_body_is_its_own() -> None:
    def body(member: Member) -> Result:
        raise ConnectionResetError("the user's server went away")

    with pytest.raises(ConnectionResetError, match="the user's server"):
        run(body, most=1, keeps_state=True)


def test_survivor_at_the_barrier_may_end_after_the_last_state() -> None:
    def body(member: Member) -> Result:
        if member.rank == 0:
            member.hand_over(b"the end", {"last": True})
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        member.share(0)
        return b"", {}

    ending = run(body, most=2, keeps_state=True)
    assert ending.loss is None
    assert ending.results == ()


def test_error_of_the_body_is_raised_and_nothing_is_asked() -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            raise KeyError("mine")
        try:
            member.share(0)
        except Stopped:
            assert not member.wants_offers
            raise
        return b"", {}

    with pytest.raises(KeyError, match="mine"):
        run(body, most=2, keeps_state=True)


# Silence


def test_stopped_rank_is_lost_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SILENT_S", 3.0)
    start = time.monotonic()
    ending = run(_stops_itself, most=2, keeps_state=True)
    assert "rank 1 on" in str(ending.loss)
    assert "gave no sign of life for 3 s" in str(ending.loss)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank 0"
    assert time.monotonic() - start < 20.0


def _stops_itself(member: Member) -> Result:
    member.share(0)
    try:
        if member.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        member.share(1)
    except Stopped:
        if member.offer({"iteration": 1}):
            return b"state of rank 0", {}
        raise
    return b"", {}


def test_rank_stopped_for_a_moment_is_not_lost() -> None:
    def watch(world: Any) -> None:
        os.kill(world[1].pid, signal.SIGSTOP)
        threading.Timer(1.5, wake, (world[1].pid,)).start()

    ending = run(size, most=2, on_world=watch)
    assert ending.loss is None
    assert len(ending.results) == 2


def test_loss_of_a_rank_without_memory_says_so() -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            member.describe = lambda: {"memory_used": 0.97, "memory_bytes": 3.0 * 2**30}
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGKILL)
        member.share(0)
        return b"", {}

    loss = str(run(body, most=2).loss)
    assert "97% of the memory in use, 3.0 GiB its own: probably out of memory" in loss


def test_driver_sees_what_ranks_do() -> None:
    seen = list[Any]()

    def body(member: Member) -> Result:
        member.describe = lambda: {"doing": "sleeping"}
        time.sleep(1.8)
        return b"", {}

    def look(meeting: Meeting) -> None:
        seen.extend(p.facts.get("doing") for p in meeting.pulses.values())

    run(body, most=1, on_pulse=look)
    assert "sleeping" in seen
