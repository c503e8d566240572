"""Rates of the schedules, written out by hand."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from zoo.errors import InputError
from zoo.orca.learn.optimizers.schedule import (
    Default,
    Exponential,
    MultiStep,
    Plateau,
    Poly,
    Scheduler,
    SequentialSchedule,
    Step,
    Warmup,
)

BASE = 0.4


def multi_step(i: int) -> float:
    return BASE if i < 3 else BASE * 0.5 if i < 5 else BASE * 0.25


RULES: list[tuple[Scheduler, Callable[[int], float]]] = [
    (Default(), lambda _: BASE),
    (Default(0.1), lambda i: BASE / (1 + i * 0.1)),
    (Poly(2, 8), lambda i: BASE * (1 - i / 8) ** 2 if i <= 8 else 0.0),
    (Poly(0.5, 8), lambda i: BASE * math.sqrt(1 - i / 8) if i <= 8 else 0.0),
    (Exponential(4, 0.3), lambda i: BASE * 0.3 ** (i / 4)),
    (Exponential(4, 0.3, True), lambda i: BASE * 0.3 ** (i // 4)),
    (Step(3, 0.1), lambda i: BASE * 0.1 ** math.floor(i / 3)),
    (MultiStep([3, 5], 0.5), multi_step),
    (MultiStep((5, 3), 0.5), multi_step),
    (Warmup(0.05), lambda i: BASE + 0.05 * i),
]


@pytest.mark.parametrize(("schedule", "rule"), RULES, ids=[repr(s)[:40] for s, _ in RULES])
def test_rates(schedule: Scheduler, rule: Callable[[int], float]) -> None:
    rates = [schedule.rate(i, BASE) for i in range(13)]
    assert rates == pytest.approx([rule(i) for i in range(13)], rel=1e-12)
    assert schedule.rate(0, BASE) == BASE


@pytest.mark.parametrize("schedule", [rule[0] for rule in RULES], ids=repr)
def test_schedules_travel(schedule: Scheduler) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert schedule.get_scheduler() is schedule
    assert schedule.monitors() == frozenset()
    assert schedule.state() == {}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Poly(-1, 8), "power"),
        (lambda: Poly(1, 0), "max_iteration"),
        (lambda: Poly(1, 1.5), "max_iteration"),
        (lambda: Exponential(0, 0.5), "decay_step"),
        (lambda: Exponential(2, -0.5), "decay_rate"),
        (lambda: Step(0, 0.5), "step_size"),
        (lambda: Step(2, None), "gamma"),
        (lambda: MultiStep(3, 0.5), "step_sizes"),
        (lambda: MultiStep(["3"], 0.5), "step_sizes"),
        (lambda: MultiStep([3], float("nan")), "gamma"),
        (lambda: Warmup("1"), "delta"),
        (lambda: Plateau("loss"), "monitor"),
        (lambda: Plateau("Loss", factor=1.0), "factor"),
        (lambda: Plateau("Loss", mode="auto"), "mode"),
        (lambda: Plateau("Loss", patience=-1), "patience"),
        (lambda: SequentialSchedule(0), "iteration_per_epoch"),
    ],
)
def test_unusable_settings_are_named(make: Callable[[], Any], name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=...\\)"):
        make()


# Plateau


def falls(schedule: Plateau, values: list[float]) -> list[float]:
    """The rate after each epoch."""
    rates = []
    for value in values:
        schedule.observe(0, {schedule.monitor: value})
        rates.append(schedule.rate(0, 1.0))
    return rates


def test_plateau_bears_patience_epochs() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=2)
    assert falls(schedule, [1.0, 1.0, 1.0, 1.0]) == [1.0, 1.0, 1.0, 0.5]


def test_plateau_counts_anew_after_an_improvement() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=1)
    assert falls(schedule, [1.0, 1.0, 0.5, 0.5, 0.5]) == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_plateau_overlooks_improvements_below_epsilon() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=0, epsilon=0.1)
    assert falls(schedule, [1.0, 0.95, 0.8]) == [1.0, 0.5, 0.5]


def test_plateau_of_a_score_wants_more() -> None:
    schedule = Plateau("score", factor=0.5, patience=0, mode="max")
    assert falls(schedule, [0.5, 0.6, 0.6, 0.4]) == [1.0, 1.0, 0.5, 0.25]


def test_plateau_rests_after_a_fall() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=0, cooldown=2)
    assert falls(schedule, [1.0] * 6) == [1.0, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_keeps_to_its_floor() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=0, min_lr=0.3)
    assert falls(schedule, [1.0] * 5) == [1.0, 0.5, 0.3, 0.3, 0.3]
    assert schedule.rate(0, 0.2) == 0.2


def test_plateau_takes_no_number_for_no_improvement() -> None:
    schedule = Plateau("Loss", factor=0.5, patience=0)
    assert falls(schedule, [math.nan, 1.0, math.nan]) == [0.5, 0.5, 0.25]


def test_plateau_says_what_it_misses() -> None:
    schedule = Plateau("score")
    assert schedule.monitors() == {"score"}
    with pytest.raises(InputError, match="a score of each epoch"):
        schedule.observe(0, {"Loss": 1.0})


def test_plateau_continues_from_its_state() -> None:
    first, second = Plateau("Loss", 0.5, 1), Plateau("Loss", 0.5, 1)
    falls(first, [1.0, 1.0, 1.0, 1.0])
    second.load_state(first.state())
    assert falls(second, [1.0, 0.1]) == falls(first, [1.0, 0.1]) == [0.25, 0.25]


# Sequences


def test_empty_sequence_is_constant() -> None:
    assert SequentialSchedule(4).rate(7, BASE) == BASE


def test_sequence_goes_on_at_the_rate_it_came_to() -> None:
    schedule = SequentialSchedule(4).add(Warmup(0.1), 3).add(Poly(1, 5), 5)
    rates = [schedule.rate(i, 1.0) for i in range(10)]
    top = 1.3
    falling = [top, top * 0.8, top * 0.6, top * 0.4, top * 0.2, 0.0, 0.0]
    assert rates == pytest.approx([1.0, 1.1, 1.2, *falling])


def test_last_of_a_sequence_goes_on() -> None:
    schedule = SequentialSchedule(4).add(Warmup(1.0), 2).add(Step(2, 0.5), 2)
    assert [schedule.rate(i, 1.0) for i in range(8)] == [1, 2, 3, 3, 1.5, 1.5, 0.75, 0.75]


def test_sequence_within_a_sequence() -> None:
    inner = SequentialSchedule(4).add(Warmup(1.0), 2).add(Default(), 2)
    schedule = SequentialSchedule(4).add(inner, 4).add(Step(1, 0.5), 9)
    assert [schedule.rate(i, 1.0) for i in range(7)] == [1, 2, 3, 3, 3, 1.5, 0.75]


def test_plateau_in_a_sequence_counts_its_own_whole_epochs() -> None:
    plateau = Plateau("Loss", factor=0.5, patience=0)
    schedule = SequentialSchedule(2).add(Warmup(1.0), 3).add(plateau, 100)
    rates = []
    for updates in (2, 4, 6, 8):
        schedule.observe(updates, {"Loss": 1.0})
        rates.append(schedule.rate(updates, 1.0))
    # The second epoch began under Warmup; the third sets the best, the fourth is no better.
    assert rates == [3.0, 4.0, 4.0, 2.0]
    assert schedule.monitors() == {"Loss"}


def test_plateau_that_is_over_hands_on_its_rate() -> None:
    plateau = Plateau("Loss", factor=0.5, patience=0)
    schedule = SequentialSchedule(1).add(plateau, 2).add(Warmup(1.0), 9)
    for updates in (1, 2, 3, 4):
        schedule.observe(updates, {"Loss": 1.0})
    assert [schedule.rate(i, 1.0) for i in (2, 3)] == [0.5, 1.5]


def test_sequence_continues_from_its_state() -> None:
    def made() -> SequentialSchedule:
        return SequentialSchedule(1).add(Plateau("Loss", 0.5, 0), 9).add(Warmup(1.0), 9)

    first, second = made(), made()
    first.observe(1, {"Loss": 1.0})
    first.observe(2, {"Loss": 1.0})
    second.load_state(first.state())
    assert second.rate(3, 1.0) == first.rate(3, 1.0) == 0.5


@pytest.mark.parametrize("given", [(0.5, 10), (Step(1, 0.5), 0), (Step(1, 0.5), "10")])
def test_sequence_refuses(given: tuple[Any, Any]) -> None:
    with pytest.raises(InputError):
        SequentialSchedule(4).add(*given)


def test_base_asks_for_a_rule() -> None:
    with pytest.raises(NotImplementedError):
        Scheduler().rate(0, 1.0)
