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

import cloudpickle
import pytest

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Invitation, LostPeerError, Message, Stopped
from zoo.cluster.ranks.round import Crew, Ending, Round, RoundHooks
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankError, SlotsError

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("warm_launcher")

Result = tuple[bytes, dict[str, Any]]


class Fewer(WarmLauncher):
    """A cluster with room for so many processes; more come when `more` is called."""

    def __init__(self, room: int) -> None:
        super().__init__()
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


class Hooks(RoundHooks):
    """Calls the functions that it is given."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        vars(self).update(calls)


def run(body: Callable[[Member], Result], most: int = 2, least: int = 1, **given: Any) -> Ending:
    launcher = given.pop("launcher", None) or WarmLauncher()
    crew = Crew(least, most, given.pop("per_executor", most), given.pop("timeout_s", 60.0))
    calls = {name: given.pop(name) for name in list(given) if name in vars(RoundHooks)}
    return Round(pickled(body, "a body"), launcher, crew, Hooks(**calls), **given).run()


def size(member: Member) -> Result:
    return b"", {"size": member.size}


# How a round begins


def test_round_begins_with_fewer_after_a_while() -> None:
    ending = run(size, most=5, least=1, launcher=Fewer(2), timing=Timing(patience_s=1.0))
    assert [r.body["size"] for r in ending.results] == [2, 2]
    assert len(ending.world) == len(ending.results)
    assert ending.loss is None
    assert not ending.left


def test_round_waits_for_the_least(caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    how = {"timeout_s": 1.0, "timing": Timing(say_after_s=0.5, unwind_s=0.5)}
    with caplog.at_level(logging.WARNING), pytest.raises(SlotsError, match="2 free .* received 1"):
        run(size, most=3, least=2, launcher=Fewer(1), **how)
    assert time.monotonic() - start < 10.0
    assert "waiting for task slots: 1 of 3 ranks are here" in caplog.text


@pytest.mark.parametrize(("waited_s", "level"), [(3.5, logging.INFO), (13.5, logging.WARNING)])
def test_python_that_starts_is_no_wait_for_slots(
    caplog: pytest.LogCaptureFixture, waited_s: float, level: int
) -> None:
    class Started:
        def running(self) -> int:
            return 3

    waiting = Round(b"", Fewer(1), Crew(1, 3, 3))
    with caplog.at_level(logging.INFO):
        waiting._say_waiting(Started(), 1, waited_s)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage() == "Python is starting for 3 ranks, 1 are here"


def test_what_hinders_tasks_is_said() -> None:
    class Hindered(Fewer):
        def hindered(self) -> str:
            return "executor 7 is excluded"

    how = {"timeout_s": 0.5, "timing": Timing(unwind_s=0.5)}
    with pytest.raises(SlotsError, match=r"received 1 \(executor 7 is excluded\)"):
        run(size, most=3, least=2, launcher=Hindered(1), **how)


def test_crew_takes_what_the_launcher_has_places_for() -> None:
    class Four(WarmLauncher):
        def places(self) -> tuple[int, int]:
            return 4, 6

    assert Crew(per_executor=2).ranks(Four()) == 8
    assert Crew(most=3, per_executor=2).ranks(Four()) == 3
    assert Crew(per_executor=2).threads(Four()) == 3
    assert Crew(per_executor=8).threads(Four()) == 1


def test_round_with_all_its_ranks_does_not_wait() -> None:
    assert len(run(size, most=2, timing=Timing(patience_s=1000.0)).results) == 2


# How it ends for more ranks


def until_asked(member: Member) -> Result:
    """Works until the ranks agree to leave."""
    while not any(member.share(member.asked_to_leave)):
        time.sleep(0.01)
    return b"", {"left": True}


def test_waiting_guest_ends_the_round() -> None:
    launcher, asked = Fewer(1), list[tuple[int, int]]()

    def wants(ranks: int, could: int) -> bool:
        asked.append((ranks, could))
        return True

    ending = run(
        until_asked,
        launcher=launcher,
        per_executor=1,
        timing=Timing(patience_s=0.1, again_s=0.2, look_s=0.2),
        on_world=lambda _: launcher.more(),
        wants_change=wants,
    )
    launcher.end()
    assert asked == [(1, 2)]
    assert ending.left
    assert ending.loss is None


def test_round_goes_on_when_a_change_is_not_wanted() -> None:
    launcher, asked = Fewer(1), list[int]()

    def body(member: Member) -> Result:
        time.sleep(1.0)
        return b"", {"left": member.asked_to_leave}

    def wants(ranks: int, could: int) -> bool:
        asked.append(could)
        return False

    ending = run(
        body,
        launcher=launcher,
        per_executor=1,
        timing=Timing(patience_s=0.1, again_s=0.2, look_s=0.2),
        on_world=lambda _: launcher.more(),
        wants_change=wants,
    )
    launcher.end()
    assert set(asked) == {2}
    assert not ending.left


def test_full_round_is_not_asked() -> None:
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


@pytest.mark.slow
def test_survivor_that_hangs_is_left_behind() -> None:
    def body(member: Member) -> Result:
        if member.rank == 0:
            member.share(0)
            member.held = True
            while True:
                time.sleep(0.1)
        return holds([9, 4])(member)

    start = time.monotonic()
    timing = Timing(offers_s=0.5, unwind_s=0.5)
    ending = run(body, most=3, keeps_state=True, timing=timing)
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
    ending = run(body, most=2, keeps_state=True, on_report=states.append)
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


@pytest.mark.slow
def test_stopped_rank_is_lost_after_a_while() -> None:
    start = time.monotonic()
    timing = Timing(silent_s=1.0, pulse_s=0.1, look_s=0.1, unwind_s=0.5)
    ending = run(_stops_itself, most=2, keeps_state=True, timing=timing)
    assert "rank 1 on" in str(ending.loss)
    assert "gave no sign of life for 1 s" in str(ending.loss)
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
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        member.share(0)
        return b"", {}

    loss = str(run(body, most=2, timing=Timing(pulse_s=0.1)).loss)
    assert "97% of the memory in use, 3.0 GiB its own: probably out of memory" in loss


def test_driver_sees_what_ranks_do() -> None:
    seen = list[Any]()

    def body(member: Member) -> Result:
        member.describe = lambda: {"doing": "sleeping"}
        time.sleep(0.8)
        return b"", {}

    def look(meeting: Meeting) -> None:
        seen.extend(p.facts.get("doing") for p in meeting.pulses.values())

    run(body, most=1, on_pulse=look, timing=Timing(pulse_s=0.1))
    assert "sleeping" in seen
