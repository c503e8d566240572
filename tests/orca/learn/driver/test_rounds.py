"""A fit as a series of rounds: what is tried again, and what reports become. No Spark, no torch."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import pytest

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.crew import Crew
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Invitation, Kind, Message
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankError, RankLostError
from zoo.orca.learn.driver import rounds as rounds_module
from zoo.orca.learn.driver.progress import Progress
from zoo.orca.learn.driver.rounds import Rounds, Start, Trained
from zoo.orca.learn.driver.sources import Opened
from zoo.orca.learn.order import LoaderSource, Order
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.report import End
from zoo.orca.learn.steps import EpochStats

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("warm_launcher")

Body = Callable[[Member, Order], tuple[bytes, dict[str, Any]]]


class Counting(WarmLauncher):
    """Counts the rounds it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        self.rounds += 1
        return super().start(invitation, body, ranks)


class Notes:
    """Takes down what a keeper is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def keep(self, message: Message) -> None:
        self.told.append(message.payload)

    def log(self, rows: Sequence[Sequence[float]]) -> None:
        self.told += rows

    def log_epoch(self, stats: EpochStats, iteration: int, wall: float) -> None:
        self.told.append((stats.epoch, iteration))


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Rounds, Trained]]:
    """Run the rounds of a fit whose ranks do what a function says."""

    def run(body: Body, rounds: Rounds | None = None) -> tuple[Rounds, Trained]:
        monkeypatch.setattr(rounds_module, "train_rank", body)
        rounds = rounds or rounds_of()
        source = LoaderSource(lambda config, size: None, {}, 1, 0)
        return rounds, rounds.run(Opened(source, None), {}, Progress(range(1), show=False))

    return run


def rounds_of(**given: Any) -> Rounds:
    return Rounds(
        Counting(), Crew(1, 1, 1), Order("none", b"", b""), Start(b"first", 0, 1, {}),
        Recovery(retries=given.pop("retries", 2)), Notes(), time.perf_counter(),
        Timing(again_s=0.1, last_s=0.1), **given,
    )  # fmt: skip


class OnRanksOnlyError(Exception):
    """Its class cannot be made again on the driver."""

    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)

    def __new__(cls, *args: Any) -> Any:
        return super().__new__(cls) if os.environ.get("IN_RANK") else 1 / 0


class ChangingError(Exception):
    """Says something else each time."""

    def __str__(self) -> str:
        return str(time.perf_counter_ns())


class MuteError(Exception):
    """Cannot say anything."""

    def __str__(self) -> str:
        raise ValueError("no words")


def exits() -> None:
    sys.exit(3)


def on_ranks_only() -> None:
    os.environ["IN_RANK"] = "1"
    raise OnRanksOnlyError


def changing() -> None:
    raise ChangingError


@pytest.mark.parametrize("fails", [exits, on_ranks_only, changing])
def test_error_that_cannot_travel_ends_the_fit_in_one_round(
    train: Callable[..., Any], fails: Callable[[], None]
) -> None:
    def body(member: Member, order: Order) -> Any:
        fails()

    rounds = rounds_of()
    with pytest.raises(RankError, match="The lines below show where") as caught:
        train(body, rounds)
    assert not isinstance(caught.value, RankLostError)
    assert rounds.launcher.rounds == 1


def test_error_without_words_ends_the_fit_in_one_round(train: Callable[..., Any]) -> None:
    def body(member: Member, order: Order) -> Any:
        raise MuteError

    rounds = rounds_of()
    with pytest.raises(MuteError):
        train(body, rounds)
    assert rounds.launcher.rounds == 1


def test_lost_rank_is_tried_again(train: Callable[..., Any]) -> None:
    def body(member: Member, order: Order) -> Any:
        os._exit(1)

    rounds = rounds_of(retries=2)
    with pytest.raises(RankLostError, match="was lost"):
        train(body, rounds)
    assert rounds.launcher.rounds == 3
    assert [facts.ended for facts in rounds.rounds] == [End.RANK_LOST] * 2


def test_task_that_is_lost_before_it_began_is_tried_again(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(Counting):
        def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
            job: Any = super().start(invitation, body, ranks)
            if self.rounds == 1:
                job._children[0].kill()
            return job  # type: ignore[no-any-return]

    rounds = rounds_of()
    rounds.launcher = Deadly()
    train(lambda member, order: (b"", {"ready_s": 0.0}), rounds)
    assert [facts.ended for facts in rounds.rounds] == [End.NOT_BEGUN, End.DONE]


def test_reports_are_told_apart_by_their_kind(train: Callable[..., Any]) -> None:
    stats = {"epoch": 1, "steps": 2}

    def body(member: Member, order: Order) -> Any:
        member.report({"epoch": 1, "step": 1, "steps": 2, "rows": 1, "loss": 0.5})
        member.report({"rows": [[1, 0.5], [2, 0.25]]}, Kind.NUMBERS)
        member.report({"rows": [[2, 0.25], [3, 0.2]]}, Kind.NUMBERS)
        member.report({"stats": stats, "iteration": 2}, Kind.EPOCH)
        member.hand_over(b"a snapshot", {"why": "snapshot"})
        member.hand_over(b"the end", {"why": "last", "last": True})
        return b"", {"ready_s": 0.0}

    rounds, trained = train(body)
    assert rounds.keeper.told == [[1, 0.5], [2, 0.25], [3, 0.2], (1, 2), b"a snapshot"]
    assert trained.state == b"the end"
    assert [e[0].steps for e in trained.epochs] == [2]


def test_state_of_a_survivor_begins_the_next_round(train: Callable[..., Any]) -> None:
    def body(member: Member, order: Order) -> Any:
        if order.state == b"first":
            if member.rank == 1:
                os._exit(1)
            with contextlib.suppress(BaseException):
                member.share(0)
            assert member.offer({"iteration": 5})
            return b"second", {}
        if member.rank == 0:
            member.hand_over(order.state + b" and last", {"why": "last", "last": True})
        return b"", {"ready_s": 0.0}

    rounds = rounds_of()
    rounds.crew = Crew(2, 2, 2)
    rounds, trained = train(body, rounds)
    assert trained.state == b"second and last"
    assert [facts.ended for facts in rounds.rounds] == [End.RANK_LOST, End.DONE]
