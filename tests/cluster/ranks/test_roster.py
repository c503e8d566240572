"""After a loss: who offers, who dies before the answer, how long a state may take."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind, Stopped
from zoo.cluster.ranks.round import Crew, Ending, Round
from zoo.cluster.ranks.timing import Timing

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Result = tuple[bytes, dict[str, Any]]
QUICK = Timing(
    pulse_s=0.1, look_s=0.1, tick_s=0.05, silent_s=0.8, offers_s=0.3, last_words_s=0.2,
    unwind_s=0.5, last_s=0.1, again_s=0.2, ignore_s=0.5, first_offer_s=0.8, notice_s=0.1,
)  # fmt: skip


def run(body: Callable[[Member], Result], ranks: int, timing: Timing = QUICK) -> Ending:
    crew = Crew(ranks, ranks, ranks)
    launcher = LocalLauncher()
    return Round(pickled(body, "it"), launcher, crew, keeps_state=True, timing=timing).run()


@pytest.fixture
def clock() -> Callable[[], float]:
    """Seconds since the test began."""
    start = time.monotonic()
    return lambda: time.monotonic() - start


def die(number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def survivors(give: Callable[[Member], Result]) -> Callable[[Member], Result]:
    """The last rank is killed; the others give something."""

    def body(member: Member) -> Result:
        member.share(0)
        try:
            if member.rank == member.size - 1:
                die()
            member.share(1)
        except Stopped:
            return give(member)
        return b"", {}

    return body


class Slow:
    """A socket of a slow network.

    Args:
        sock: The real one.
        pause_s: Before each piece.
        pieces: After how many it stands still.
    """

    def __init__(self, sock: Any, pause_s: float, pieces: int = 1 << 30) -> None:
        self._sock, self._pause_s, self._pieces = sock, pause_s, pieces

    def sendall(self, data: memoryview) -> None:
        if len(data) > 1000:
            time.sleep(self._pause_s)
            self._pieces -= 1
            while self._pieces < 0:
                time.sleep(1.0)
        self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def slow_down(member: Member, pause_s: float, pieces: int = 1 << 30) -> None:
    link: Any = member._link
    link._sock = Slow(link._sock, pause_s, pieces)


def test_survivor_that_dies_after_its_offer_is_not_waited_for(clock: Callable[[], float]) -> None:
    def give(member: Member) -> Result:
        if member.rank == 1:
            member.held = True
            member._link.send({"kind": Kind.OFFER, "iteration": 9})
            die()
        time.sleep(0.3)  # the offer of the other, and its death, come first
        if member.offer({"iteration": 4}):
            return b"state of rank 0", {}
        raise Stopped

    ending = run(survivors(give), 3)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank 0"
    assert clock() < 10.0
    assert "rank 1 on" in str(ending.loss)
    assert "rank 2 on" in str(ending.loss)


def test_only_survivor_that_dies_after_its_offer_is_not_waited_for(
    clock: Callable[[], float],
) -> None:
    def give(member: Member) -> Result:
        member.held = True
        member._link.send({"kind": Kind.OFFER, "iteration": 9})
        die()
        return b"", {}

    ending = run(survivors(give), 2)
    assert ending.kept is None
    assert clock() < 10.0


def test_survivor_that_is_stopped_after_its_offer_is_not_waited_for(
    clock: Callable[[], float],
) -> None:
    def give(member: Member) -> Result:
        if member.rank == 1:
            member.held = True
            member._link.send({"kind": Kind.OFFER, "iteration": 9})
            die(signal.SIGSTOP)
        if member.offer({"iteration": 4}):
            return b"state of rank 0", {}
        raise Stopped

    ending = run(survivors(give), 3)
    assert ending.kept is not None
    assert ending.kept.payload == b"state of rank 0"
    assert "gave no sign of life" in str(ending.loss)
    assert clock() < 12.0


def test_state_comes_as_long_as_it_moves() -> None:
    """For longer than any limit: of silence, of the offer, of who goes on after the end."""

    def give(member: Member) -> Result:
        if not member.offer({"iteration": 1}):
            raise Stopped
        slow_down(member, pause_s=0.2)
        return bytes(10 * (1 << 18)), {}

    ending = run(survivors(give), 2)
    assert ending.kept is not None
    assert len(ending.kept.payload) == 10 * (1 << 18)


def test_second_survivor_lives_while_the_first_gives(clock: Callable[[], float]) -> None:
    def give(member: Member) -> Result:
        wanted = member.offer({"iteration": 2 - member.rank})
        if not wanted:
            raise Stopped
        if member.rank == 0:
            slow_down(member, pause_s=0.2, pieces=4)
        return bytes(12 * (1 << 18)) + b"of rank %d" % member.rank, {}

    ending = run(survivors(give), 3)
    assert ending.kept is not None
    assert ending.kept.payload.endswith(b"of rank 1")
    assert "stopped inside a message of 3,145," in str(ending.loss)
    assert clock() < 15.0


def test_last_state_on_the_wire_is_waited_for() -> None:
    def body(member: Member) -> Result:
        member.share(0)
        try:
            if member.rank == 1:
                time.sleep(0.5)
                die()
            slow_down(member, pause_s=0.2)
            member.hand_over(bytes(8 * (1 << 18)), {"last": True})
            member.share(1)
        except Stopped:
            member.bye()
        return b"", {}

    ending = run(body, 2)
    assert ending.kept is not None
    assert len(ending.kept.payload) == 8 * (1 << 18)


def test_survivor_with_nothing_whole_is_not_called_lost() -> None:
    def give(member: Member) -> Result:
        raise Stopped

    ending = run(survivors(give), 3)
    assert ending.kept is None
    assert "rank 0 on" not in str(ending.loss)


def test_rank_that_says_goodbye_too_soon_is_lost() -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            member.bye()
            raise SystemExit
        member.share(0)
        return b"", {}

    ending = run(body, 2)
    assert "the driver was gone for it" in str(ending.loss)
