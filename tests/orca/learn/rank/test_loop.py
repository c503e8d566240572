"""The loop of a rank, with a model of one number and real meetings."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Stopped
from zoo.errors import InputError
from zoo.orca.learn.rank.loop import Loop, Observer
from zoo.orca.learn.steps import EpochStats, Position, StepSums

Batches = Sequence[list[float] | None]


class Mean:
    """Goes toward the mean of what it sees; its loss of a row is the row."""

    def __init__(self, *, alone: bool = False, exchange_at: int | None = None) -> None:
        self.weight, self.seeds, self.restored = 0.0, list[int](), 0
        self.arrays = [] if alone else [np.zeros(1)]
        self.sum, self.alone, self.exchange_at = np.zeros(1), alone, exchange_at
        self.found: dict[str, float] = {}
        self.settled = list[float]()
        self.rest = np.zeros(1)

    def buffers(self) -> list[np.ndarray]:
        return self.arrays

    def begin_epoch(self, epoch: int) -> None:
        if epoch == self.exchange_at:
            self.arrays = [np.zeros(1), np.zeros(3)]

    def begin_step(self, iteration: int) -> None:
        self.seeds.append(iteration)

    def backward(self, batch: list[float] | None, sums: StepSums) -> None:
        rows = batch or []
        sums.set(len(rows), float(len(rows)), sum(rows))
        self.sum[:] = sum(rows)
        for array in self.arrays:
            array[:] = sum(rows)

    def update(self, sums: StepSums) -> None:
        total = self.arrays[0] if self.arrays else self.sum
        self.weight += 0.1 * (total[0] / sums.weight - self.weight)

    def restore(self) -> None:
        self.restored += 1

    def remainder(self, own_rows: int) -> list[np.ndarray]:
        self.rest[:] = own_rows
        return [self.rest]

    def settle(self) -> None:
        self.settled.append(float(self.rest[0]))

    def score(self) -> dict[str, float] | None:
        return self.found or None

    def scored(self, parts: Sequence[dict[str, float]]) -> dict[str, float]:
        return {name: sum(part[name] for part in parts) for name in self.found}

    def end_epoch(self, stats: EpochStats) -> None:
        pass


class Lists:
    """Batches in memory, the same in every epoch."""

    def __init__(self, batches: Batches, *, counted: bool = True) -> None:
        self.batches, self.steps = batches, len(batches) if counted else None
        self.asked = list[tuple[int, int]]()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[float] | None]:
        self.asked.append((epoch, start))
        return iter(self.batches[start:])


class Watching(Observer):
    """Notes what it sees, and stops or leaves at an iteration."""

    may_stop = True

    def __init__(self, stop_at: int | None = None, leave_at: int | None = None) -> None:
        self.told, self.loop = list[Any](), None  # type: list[Any], Any
        self.stop_at, self.leave_at = stop_at, leave_at

    def epoch_begins(self, stats: EpochStats) -> None:
        self.told.append(("begins", stats.epoch))

    def step_done(self, stats: EpochStats, sums: StepSums) -> None:
        at = self.loop.position.iteration
        self.told.append((at, self.loop._member.held))
        self.wants_stop = self.wants_stop or at == self.stop_at
        if at == self.leave_at:
            self.loop._member.asked_to_leave = True

    def epoch_ends(self, stats: EpochStats) -> None:
        self.told.append(("ends", stats.epoch))

    def epoch_done(self, stats: EpochStats) -> None:
        self.told.append(("done", self.loop.position.epoch, self.loop.position.step))


def loop_of(
    member: Member,
    batches: Batches,
    *,
    at: Position | None = None,
    observer: Watching | None = None,
    counted: bool = True,
    **given: Any,
) -> Loop:
    observer = observer or Watching()
    feed, learner = Lists(batches, counted=counted), Mean(alone=member.size == 1)
    loop = Loop(member, learner, feed, at or Position(), observer=observer, **given)
    observer.loop = loop
    return loop


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """Two ranks, in threads of this process."""
    yield from ranks_of(2)


@pytest.fixture
def member() -> Iterator[Member]:
    """The only rank."""
    yield from (m[0] for m in ranks_of(1))


def ranks_of(size: int) -> Iterator[list[Member]]:
    with Meeting("127.0.0.1", ranks=size, per_executor=size) as meeting:
        made = [Member(meeting.invitation, "executor") for _ in range(size)]
        with ThreadPoolExecutor(size) as pool:
            assert all(pool.map(Member.join, made))
        yield sorted(made, key=lambda m: m.rank)
        for one in made:
            one.close()


def run_all(loops: Sequence[Loop], until: int) -> None:
    with ThreadPoolExecutor(len(loops)) as pool:
        list(pool.map(lambda loop: loop.run(until), loops))


FOUR: Batches = [[1.0, 2.0], [3.0], [4.0, 5.0], [6.0]]


def test_position_moves_with_every_step(member: Member) -> None:
    loop = loop_of(member, FOUR)
    loop.run(3)
    assert loop.position == Position(epoch=3, step=0, iteration=12)
    assert loop._learner.seeds == list(range(12))


def test_order_in_which_an_observer_is_told(member: Member) -> None:
    observer = Watching()
    loop_of(member, FOUR[:2], observer=observer).run(2)
    first = [("begins", 1), (1, True), (2, True), ("ends", 1), ("done", 1, 0)]
    second = [("begins", 2), (3, True), (4, True), ("ends", 2), ("done", 2, 0)]
    assert observer.told == first + second
    assert member.held is False


def test_statistics_are_means_over_rows(member: Member) -> None:
    loop = loop_of(member, FOUR)
    loop.run(1)
    stats = loop.stats
    assert (stats.epoch, stats.steps, stats.rows, stats.own_rows) == (1, 4, 6, 6)
    assert stats.loss == stats.own_loss == pytest.approx(21 / 6)
    assert stats.last_loss == 6.0
    assert stats.seconds >= stats.data_s + stats.compute_s


def test_loop_goes_on_inside_an_epoch(member: Member) -> None:
    whole = loop_of(member, FOUR)
    whole.run(2)
    begun = EpochStats(
        2, steps=2, rows=3, weight=3.0, loss_sum=6.0, own_rows=3, own_weight=3.0, own_loss_sum=6.0
    )
    loop = loop_of(member, FOUR, at=Position(1, 2, 6), begun=begun)
    loop.run(2)
    assert loop._feed.asked == [(1, 2)]
    assert loop._learner.seeds == [6, 7]
    assert (loop.stats.rows, loop.stats.loss) == (whole.stats.rows, whole.stats.loss)
    assert loop.position == whole.position


def test_finished_work_is_not_done_again(member: Member) -> None:
    loop = loop_of(member, FOUR, at=Position(2, 0, 8))
    loop.run(2)
    assert loop._feed.asked == []


def test_ranks_add_up(members: list[Member]) -> None:
    loops = [loop_of(members[0], [[2.0], [4.0]]), loop_of(members[1], [[4.0, 6.0], None])]
    run_all(loops, 1)
    assert [loop.stats.rows for loop in loops] == [4, 4]
    assert [loop.stats.own_rows for loop in loops] == [2, 2]
    assert loops[0]._learner.weight == loops[1]._learner.weight == pytest.approx(0.36 + 0.4)
    assert loops[0].stats.loss_sum == pytest.approx(16.0)


def test_rank_whose_loader_is_shorter_takes_part_to_the_end(members: list[Member]) -> None:
    loops = [
        loop_of(members[0], [[2.0], [4.0], [6.0]], counted=False),
        loop_of(members[1], [[2.0]], counted=False),
    ]
    run_all(loops, 1)
    assert [loop.position for loop in loops] == [Position(1, 0, 3)] * 2
    assert loops[0]._learner.weight == loops[1]._learner.weight
    assert [loop.stats.own_rows for loop in loops] == [3, 1]


def test_no_batches_at_all_is_an_error(member: Member) -> None:
    with pytest.raises(InputError, match="batches to train on.*none in epoch 1"):
        loop_of(member, [], counted=False).run(1)


@pytest.mark.parametrize("iteration", [1, 3, 4, 6])
def test_fit_stops_after_the_step_of_one_ranks_word(members: list[Member], iteration: int) -> None:
    loops = [
        loop_of(members[0], FOUR, observer=Watching()),
        loop_of(members[1], FOUR, observer=Watching(stop_at=iteration)),
    ]
    run_all(loops, 2)
    assert all(loop.stopped and not loop.left for loop in loops)
    assert [loop.position.iteration for loop in loops] == [iteration] * 2
    assert loops[0]._learner.weight == loops[1]._learner.weight


@pytest.mark.parametrize("iteration", [2, 4])
def test_only_rank_stops_after_its_step(member: Member, iteration: int) -> None:
    loop = loop_of(member, FOUR, observer=Watching(stop_at=iteration))
    loop.run(2)
    assert loop.stopped
    assert loop.position.iteration == iteration


def test_round_ends_when_one_rank_was_asked_to_leave(members: list[Member]) -> None:
    loops = [
        loop_of(members[0], FOUR),
        loop_of(members[1], FOUR, observer=Watching(leave_at=2)),
    ]
    run_all(loops, 5)
    assert all(loop.left and not loop.stopped for loop in loops)
    assert loops[0].position == loops[1].position == Position(0, 3, 3)


def test_request_to_leave_that_comes_at_the_end_changes_nothing(members: list[Member]) -> None:
    loops = [loop_of(m, FOUR, observer=Watching(leave_at=8)) for m in members]
    run_all(loops, 2)
    assert [loop.left for loop in loops] == [False, False]
    assert loops[0].position == Position(2, 0, 8)


def test_other_arrays_in_a_later_epoch_are_added_up_too(members: list[Member]) -> None:
    loops = [loop_of(m, [[float(m.rank)]]) for m in members]
    for loop in loops:
        loop._learner.exchange_at = 1
    run_all(loops, 2)
    assert [loop._learner.arrays[1].tolist() for loop in loops] == [[1.0] * 3] * 2


def test_validation_counts_in_no_other_time(member: Member) -> None:
    loop = loop_of(member, FOUR)
    loop._learner.found = {"val_loss": 0.5}
    loop.run(1)
    assert loop.stats.validation == {"val_loss": 0.5}
    assert loop.stats.validate_s > 0


def test_rank_says_what_it_is_doing(member: Member) -> None:
    loop = loop_of(member, FOUR, at=Position(0, 1, 1))
    assert loop.describe()["doing"] == "starting"
    said: list[dict[str, Any]] = []
    loop._feed.epoch = lambda *_: said.append(loop.describe()) or iter(FOUR)
    loop._learner.remainder = lambda rows: said.append(loop.describe()) or []
    loop.run(1)
    assert [s["doing"] for s in said] == ["starting", "agreeing at the end of an epoch"]
    assert (said[1]["epoch"], said[1]["step"], said[1]["iteration"]) == (1, 5, 5)


def test_loop_stops_between_steps_when_the_driver_says_so(member: Member) -> None:
    observer = Watching()
    loop = loop_of(member, FOUR, observer=observer)

    def stop(stats: EpochStats, sums: StepSums) -> None:
        member._why = "enough"

    observer.step_done = stop
    with pytest.raises(Stopped, match="enough"):
        loop.run(1)
    assert loop.position == Position(0, 1, 1)
    assert member.held is False


def test_nothing_is_left_of_a_loop(members: list[Member]) -> None:
    before = threading.active_count()
    run_all([loop_of(m, FOUR) for m in members], 1)
    assert threading.active_count() <= before


def test_sums_of_a_step_without_weight_have_no_loss() -> None:
    sums = StepSums()
    sums.set(3, 0.0, 0.0)
    assert np.isnan(sums.loss)
    assert (sums.rows, sums.active, sums.stop, sums.leave) == (3, True, False, False)
    sums.vote(stop=True, leave=True)
    sums.clear()
    assert (sums.rows, sums.active, sums.stop, sums.leave) == (0, False, True, True)


def test_what_is_left_at_the_end_of_an_epoch_adds_up_over_the_ranks(members: list[Member]) -> None:
    loops = [loop_of(members[0], FOUR), loop_of(members[1], [[1.0], None, [2.0], [3.0]])]
    run_all(loops, 2)
    assert [loop._learner.settled for loop in loops] == [[9.0, 9.0], [9.0, 9.0]]


def test_nobody_interrupts_a_learner_that_settles(member: Member) -> None:
    loop = loop_of(member, FOUR)
    held: list[bool] = []
    loop._learner.settle = lambda: held.append(member.held)
    loop.run(1)
    assert held == [True]
    assert member.held is False


def test_scores_of_all_ranks_are_put_together(members: list[Member]) -> None:
    loops = [loop_of(member, FOUR) for member in members]
    for loop, share in zip(loops, (0.25, 0.5), strict=True):
        loop._learner.found = {"val_loss": share}
    run_all(loops, 1)
    assert [loop.stats.validation for loop in loops] == [{"val_loss": 0.75}] * 2
