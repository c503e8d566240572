"""Where ranks meet: who becomes a rank, who is turned away, and what passes between them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from zoo.cluster.ranks.meeting import Meeting, choose
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Arrival, Invitation, Kind, Stopped

HOST = "127.0.0.1"


def arrivals(*places: str) -> list[Arrival]:
    """Arrivals from places such as `h1/e1`, or `h1/e1/7` with a task number."""
    made = []
    for pid, place in enumerate(places):
        host, executor, *task = place.split("/")
        made.append(Arrival(executor, host, host, HOST, pid, task=int(task[0]) if task else None))
    return made


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    before = set(threading.enumerate())
    with Meeting(HOST, ranks=2, per_executor=1) as made:
        yield made
    await_true(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def members(meeting: Meeting) -> Iterator[list[Member]]:
    joined = join(meeting, "a", "b")
    yield joined
    for member in joined:
        member.close()


def join(meeting: Meeting, *executors: str) -> list[Member]:
    """Let a task of each executor arrive, in this order, and give those that are ranks."""
    made = [Member(meeting.invitation, executor) for executor in executors]
    with ThreadPoolExecutor(len(made)) as pool:
        joining = []
        for member in made:
            joining.append(pool.submit(member.join))
            time.sleep(0.02)
        ranks = [m for m, ran in zip(made, joining, strict=True) if ran.result(10)]
    for member in made:
        if member not in ranks:
            member.close()
    return sorted(ranks, key=lambda m: m.rank)


# Who becomes a rank


def test_world_takes_one_of_each_executor() -> None:
    came = arrivals("h1/e1", "h1/e1", "h2/e2", "h1/e3")
    assert choose(came, ranks=3, per_executor=1) == [0, 3, 2]


def test_executors_share_ranks_evenly() -> None:
    came = arrivals("h/e1", "h/e1", "h/e1", "h/e2", "h/e2")
    assert choose(came, ranks=4, per_executor=3) == [0, 1, 3, 4]


def test_ranks_of_a_host_are_neighbours() -> None:
    came = arrivals("h2/e4", "h1/e1", "h2/e3", "h1/e2")
    chosen = choose(came, ranks=4, per_executor=1)
    assert chosen is not None
    assert [came[i].host for i in chosen] == ["h1", "h1", "h2", "h2"]


def test_world_waits_for_enough_executors() -> None:
    came = arrivals("h/e1", "h/e1", "h/e1")
    assert choose(came, ranks=2, per_executor=1) is None


def test_copies_of_a_task_count_once() -> None:
    assert choose(arrivals("h/e1/7", "h/e2/7"), ranks=2, per_executor=1) is None
    assert choose(arrivals("h/e1/7", "h/e2/7", "h/e2/8"), ranks=2, per_executor=1) == [0, 2]


def test_ranks_are_dense_and_know_each_other(members: list[Member]) -> None:
    assert [m.rank for m in members] == [0, 1]
    assert members[0].peers == members[1].peers
    assert [p.rank for p in members[0].peers] == [0, 1]
    assert members[0].neighbours == [0, 1]


def test_extra_task_is_dismissed_when_the_world_is_named(meeting: Meeting) -> None:
    ranks = join(meeting, "a", "a", "b")
    assert [m.arrival.executor for m in ranks] == ["a", "b"]
    for member in ranks:
        member.close()


def test_late_task_is_dismissed(meeting: Meeting, members: list[Member]) -> None:
    assert join(meeting, "c") == []
    assert members[0].size == 2


def test_task_after_the_stop_is_dismissed(meeting: Meeting) -> None:
    meeting.stop("enough")
    assert join(meeting, "a") == []


def test_task_that_left_is_not_counted(meeting: Meeting) -> None:
    gone = Member(meeting.invitation, "a")
    joining = threading.Thread(target=gone.join)
    joining.start()
    await_true(lambda: meeting.arrived == 1)
    gone._link.end()
    joining.join()
    gone.close()
    await_true(lambda: meeting.arrived == 0)
    ranks = join(meeting, "a", "b")
    assert len(ranks) == 2
    for member in ranks:
        member.close()


def test_only_tasks_that_fit_are_counted(meeting: Meeting) -> None:
    same = [Member(meeting.invitation, "a") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        joining = [pool.submit(member.join) for member in same]
        await_true(lambda: len(meeting._guests) == 3)
        assert meeting.arrived == 1
        meeting.stop("enough")
        assert not any(ran.result(5) for ran in joining)
    for member in same:
        member.close()


def test_copy_of_a_ranks_task_waits_for_the_end(meeting: Meeting) -> None:
    tasks = [Member(meeting.invitation, str(n), task=n) for n in (1, 2)]
    copy = Member(meeting.invitation, "3", task=1)
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(Member.join, tasks))
        waiting = pool.submit(copy.join)
        time.sleep(0.2)
        assert not waiting.done()
        meeting.stop("all ranks have ended")
        assert waiting.result(5) is False
    for member in (*tasks, copy):
        member.close()


def test_two_hundred_tasks_at_once() -> None:
    with Meeting(HOST, ranks=100, per_executor=1) as meeting:

        def attend(number: int) -> int:
            member = Member(meeting.invitation, str(number // 2))
            member.join()
            member.close()
            return member.rank

        with ThreadPoolExecutor(200) as pool:
            ranks = list(pool.map(attend, range(200)))
    assert sorted(r for r in ranks if r >= 0) == list(range(100))


# Fewer than wanted, and more later


@pytest.fixture
def small() -> Iterator[tuple[Meeting, list[Member]]]:
    """A meeting for three that was settled with two, and its ranks."""
    with Meeting(HOST, ranks=3, per_executor=1) as meeting, ThreadPoolExecutor(2) as pool:
        made = [Member(meeting.invitation, name) for name in ("a", "b")]
        joining = [pool.submit(member.join) for member in made]
        await_true(lambda: meeting.arrived == 2)
        meeting.settle()
        assert all(ran.result(5) for ran in joining)
        yield meeting, sorted(made, key=lambda m: m.rank)
        for member in made:
            member.close()


def test_world_is_settled_with_those_who_are_here(small: tuple[Meeting, list[Member]]) -> None:
    meeting, ranks = small
    assert [m.size for m in ranks] == [2, 2]
    assert len(meeting.world) == 2
    assert meeting.waiting == 0


def test_settling_again_changes_nothing(small: tuple[Meeting, list[Member]]) -> None:
    meeting, _ = small
    before = meeting.world
    meeting.settle()
    assert meeting.world == before


def test_guest_that_could_be_a_rank_waits_for_the_next_round(
    small: tuple[Meeting, list[Member]],
) -> None:
    meeting, _ = small
    guest = Member(meeting.invitation, "c")
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(guest.join)
        await_true(lambda: meeting.waiting == 1)
        assert not joining.done()
        assert join(meeting, "a") == []  # there is a rank of this executor
        assert join(meeting, "d") == []  # there is no more room
        meeting.stop("the round is over")
        assert joining.result(5) is False
    guest.close()


def test_ranks_are_asked_to_leave(small: tuple[Meeting, list[Member]]) -> None:
    meeting, ranks = small
    assert not any(m.asked_to_leave for m in ranks)
    meeting.ask_to_leave()
    await_true(lambda: all(m.asked_to_leave for m in ranks))
    assert ranks[0]._why is None


def test_offers_are_answered(small: tuple[Meeting, list[Member]]) -> None:
    meeting, ranks = small
    meeting.stop("a rank was lost", offers=True)
    await_true(lambda: all(m.wants_offers for m in ranks))
    with ThreadPoolExecutor(2) as pool:
        offering = [pool.submit(m.offer, {"iteration": 7 + m.rank}) for m in ranks]
        offers = sorted((meeting.inbox.get(timeout=5) for _ in ranks), key=lambda o: o.rank)
        assert [o.kind for o in offers] == ["offer", "offer"]
        assert [o.body for o in offers] == [{"iteration": 7}, {"iteration": 8}]
        meeting.answer(0, give=False)
        meeting.answer(1, give=True)
        assert [o.result(5) for o in offering] == [False, True]
    assert all(m.held for m in ranks)


def test_offer_is_refused_when_the_driver_is_gone() -> None:
    with Meeting(HOST, ranks=1, per_executor=1) as meeting:
        member = Member(meeting.invitation, "a")
        assert member.join()
        meeting.stop("a rank was lost", offers=True)
        await_true(lambda: member.wants_offers)
    assert member.offer({"iteration": 1}) is False
    member.close()


def test_signs_of_life_say_what_a_rank_does(small: tuple[Meeting, list[Member]]) -> None:
    meeting, ranks = small
    ranks[1].describe = lambda: {"doing": "computing"}
    await_true(lambda: meeting.pulses[1].facts.get("doing") == "computing")
    assert time.monotonic() - meeting.pulses[1].at < 5.0


# Strangers


def test_stranger_with_another_key_is_turned_away(meeting: Meeting) -> None:
    stranger = Invitation(meeting.invitation.address, b"x" * 32)
    with pytest.raises(OSError, match=r"key|ended|reset"):
        Member(stranger, "a")
    assert len(joined := join(meeting, "a", "b")) == 2
    for member in joined:
        member.close()


def test_strangers_who_hold_on_or_send_garbage_do_not_disturb(meeting: Meeting) -> None:
    silent = [socket.create_connection(meeting.invitation.address) for _ in range(5)]
    noisy = socket.create_connection(meeting.invitation.address)
    noisy.sendall(b"GET / HTTP/1.1\r\n\r\n" * 1000)
    start = time.monotonic()
    joined = join(meeting, "a", "b")
    assert len(joined) == 2
    assert time.monotonic() - start < 5.0
    for member in joined:
        member.close()
    for connection in (*silent, noisy):
        connection.close()


def test_task_of_an_earlier_meeting_is_told_so() -> None:
    with Meeting(HOST, ranks=1, per_executor=1) as meeting:
        invitation = meeting.invitation
    with pytest.raises(ConnectionRefusedError):
        Member(invitation, "a")


def test_key_is_not_shown() -> None:
    with Meeting(HOST, ranks=1, per_executor=1) as meeting:
        assert repr(meeting.invitation.key) not in repr(meeting.invitation)


# What passes


def test_shared_values_come_in_order_of_rank(members: list[Member]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for turn in range(5):
            sharing = [pool.submit(m.share, {"rank": m.rank, "turn": turn}) for m in members]
            expected = [{"rank": 0, "turn": turn}, {"rank": 1, "turn": turn}]
            assert [s.result(5) for s in sharing] == [expected, expected]


def test_driver_hears_progress_and_results(meeting: Meeting, members: list[Member]) -> None:
    members[1].report({"step": 3})
    message = meeting.inbox.get(timeout=5)
    assert (message.rank, message.kind, message.body) == (1, "progress", {"step": 3})
    members[1].finish(b"result", {"n": 1})
    message = meeting.inbox.get(timeout=5)
    assert (message.kind, message.body, message.payload) == ("result", {"n": 1}, b"result")


def test_rank_that_goes_without_a_word_is_lost(meeting: Meeting, members: list[Member]) -> None:
    members[0]._link.end()
    message = meeting.inbox.get(timeout=5)
    assert (message.rank, message.kind) == (0, "lost")


@pytest.mark.parametrize(
    "body",
    [{}, {"kind": "nonsense"}, {"kind": "share"}, {"kind": "share", "turn": [], "value": 1}, []],
    ids=str,
)
def test_rank_that_talks_nonsense_is_lost_at_once(
    meeting: Meeting, members: list[Member], body: dict[str, Any]
) -> None:
    members[1]._link.send(body)
    message = meeting.inbox.get(timeout=5)
    assert (message.rank, message.kind) == (1, Kind.LOST)
    assert "what cannot be understood" in message.body["why"]
    await_true(lambda: meeting.connected == 1)


def test_rank_whose_head_is_no_head_is_lost_at_once(
    meeting: Meeting, members: list[Member]
) -> None:
    members[1]._link._sock.sendall(b"\x02\0\0\0" + b"\xff" * 8 + b"{}")
    assert meeting.inbox.get(timeout=5).kind is Kind.LOST


def test_rank_that_leaves_with_the_round_is_not_lost(
    meeting: Meeting, members: list[Member]
) -> None:
    meeting.stop("a rank was lost")
    members[0].bye()
    members[0].close()
    assert meeting.inbox.get(timeout=5).kind is Kind.BYE
    await_true(lambda: meeting.connected == 1)
    assert meeting.inbox.empty()


def test_rank_that_ended_is_not_lost(meeting: Meeting, members: list[Member]) -> None:
    members[0].finish(b"")
    members[0].close()
    assert meeting.inbox.get(timeout=5).kind == "result"
    assert meeting.inbox.empty()


def test_stop_reaches_who_waits_and_who_looks(meeting: Meeting, members: list[Member]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(members[0].share, 1)
        meeting.stop("enough")
        assert "enough" in str(waiting.exception(5))
    await_true(lambda: members[1]._why is not None)
    with pytest.raises(Stopped, match="enough"):
        members[1].check()


def test_end_of_the_driver_is_a_stop(members: list[Member], meeting: Meeting) -> None:
    told = threading.Event()
    with Meeting(HOST, ranks=1, per_executor=1) as other:
        member = Member(other.invitation, "a")
        assert member.join(told.set)
    assert told.wait(5)
    with pytest.raises(Stopped):
        member.share(1)
    member.close()


def test_nothing_is_left_after_many_meetings(fresh_python: Callable[..., Any]) -> None:
    """In a process of its own: what other tests have left opens and ends when it likes."""
    done = fresh_python(MANY_MEETINGS)
    assert done.returncode == 0, done.stderr


MANY_MEETINGS = """
import gc, os, threading, time
from concurrent.futures import ThreadPoolExecutor
from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.member import Member

def meet():
    with Meeting("127.0.0.1", ranks=2, per_executor=1) as meeting:
        members = [Member(meeting.invitation, executor) for executor in "ab"]
        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(lambda member: member.join(), members))
        for member in members:
            member.close()

def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

meet()  # what is opened once for all
before, threads = descriptors(), threading.active_count()
for _ in range(20):
    meet()
deadline = time.monotonic() + 5
while threading.active_count() > threads and time.monotonic() < deadline:
    time.sleep(0.01)
assert threading.active_count() <= threads, threading.enumerate()
assert descriptors() <= before, (descriptors(), before)
"""


def await_true(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
