"""A rank's side of a meeting: signs of life, and how long it may go on after the end."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Stopped
from zoo.cluster.ranks.timing import Timing

QUICK = Timing(pulse_s=0.02, ignore_s=0.3, first_offer_s=0.6, give_s=0.2, silent_s=0.4)


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    with Meeting("127.0.0.1", ranks=1, per_executor=1, timing=QUICK) as made:
        yield made


@pytest.fixture
def member(meeting: Meeting) -> Iterator[Member]:
    made = Member(meeting.invitation, "a")
    assert made.join()
    yield made
    made.close()


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def beats_on(meeting: Meeting) -> None:
    at = meeting.pulses[0].at
    await_true(lambda: meeting.pulses[0].at > at)
    later = meeting.pulses[0].at
    await_true(lambda: meeting.pulses[0].at > later)


@pytest.mark.parametrize(
    "describe",
    [lambda: [][0], lambda: {}["x"], lambda: {"a": object()}, lambda: 1 / 0, lambda: None],
    ids=["index", "key", "not JSON", "division", "no dict"],
)
def test_signs_of_life_survive_what_cannot_be_told(
    meeting: Meeting, member: Member, describe: Callable[[], dict[str, Any]]
) -> None:
    member.describe = describe
    beats_on(meeting)
    assert meeting.pulses[0].facts == {}


def test_timing_travels_with_the_invitation(member: Member) -> None:
    assert member.timing == QUICK


def test_rank_that_goes_on_is_overdue(meeting: Meeting, member: Member) -> None:
    meeting.stop("enough")
    await_true(lambda: member.stopped)
    assert not member.overdue
    await_true(lambda: member.overdue)


def test_rank_that_offers_waits_for_the_driver(meeting: Meeting, member: Member) -> None:
    meeting.stop("a rank was lost", offers=True)
    await_true(lambda: member.wants_offers)
    offering = threading.Thread(target=member.offer, args=({"iteration": 1},))
    offering.start()
    meeting.inbox.get(timeout=5)
    time.sleep(0.8)
    assert not member.overdue
    meeting.answer(0, give=True)
    offering.join()
    assert not member.overdue  # its time begins anew
    await_true(lambda: member.overdue)


def test_rank_that_sends_has_time_as_long_as_bytes_move(meeting: Meeting, member: Member) -> None:
    meeting.stop("a rank was lost", offers=True)
    await_true(lambda: member.stopped)
    flow = member._link.sending
    with member._link._lock:  # its signs of life wait, as they do for a long message
        flow.begin(1000, 0)
        for _ in range(10):
            time.sleep(0.1)
            flow.move(1)
            assert not member.overdue
        await_true(lambda: member.overdue)
        flow.move(990)


def test_driver_that_cannot_be_understood_ends_the_round(meeting: Meeting, member: Member) -> None:
    (link,) = meeting._links
    link.send({"nonsense": 1})
    await_true(lambda: member.stopped)
    with pytest.raises(Stopped, match="cannot be understood"):
        member.check()
    assert member.offer({}) is False
