import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.learn import trigger
from zoo.orca.learn.trigger import (
    EveryEpoch,
    EverySeconds,
    MaxEpoch,
    MaxIteration,
    MaxScore,
    MinLoss,
    Moment,
    SeveralIteration,
    Trigger,
    TriggerAnd,
    TriggerOr,
)


def at(
    iteration: int = 1,
    epoch: int = 0,
    ended: bool = False,
    loss: float = 1.0,
    score: float | None = None,
    seconds: float = 0.0,
) -> Moment:
    return Moment(iteration, epoch, ended, loss, score, seconds)


def run(one: Trigger, epochs: int, steps: int) -> list[int]:
    """The steps after which a trigger fires in a fit whose steps take a second each."""
    fired: list[int] = []
    for number in range(1, epochs * steps + 1):
        since = float(number - (fired[-1] if fired else 0))
        if one.fires(at(number, number // steps, number % steps == 0, seconds=since)):
            fired.append(number)
    return fired


class Odd(Trigger):
    def fires(self, moment: Moment) -> bool:
        return moment.iteration % 2 == 1


EACH = [
    EveryEpoch(),
    EverySeconds(3),
    SeveralIteration(3),
    MaxEpoch(2),
    MaxIteration(3),
    MaxScore(0.5),
    MinLoss(0.5),
]


def test_every_epoch() -> None:
    assert run(EveryEpoch(), epochs=3, steps=2) == [2, 4, 6]


def test_every_epoch_of_one_step_fires_each_time() -> None:
    assert run(EveryEpoch(), epochs=3, steps=1) == [1, 2, 3]


def test_several_iteration_counts_over_epochs() -> None:
    assert run(SeveralIteration(3), epochs=2, steps=4) == [3, 6]


def test_nothing_is_done_before_the_first_step() -> None:
    assert not SeveralIteration(3).fires(at(0))


def test_max_epoch() -> None:
    assert run(MaxEpoch(2), epochs=3, steps=2) == [4, 5, 6]


def test_max_iteration() -> None:
    assert run(MaxIteration(4), epochs=3, steps=2) == [4, 5, 6]


@pytest.mark.parametrize(("score", "fires"), [(None, False), (0.5, False), (0.6, True)])
def test_max_score(score: float | None, fires: bool) -> None:
    assert MaxScore(0.5).fires(at(score=score)) is fires


@pytest.mark.parametrize(("loss", "fires"), [(math.nan, False), (0.5, False), (0.4, True)])
def test_min_loss(loss: float, fires: bool) -> None:
    assert MinLoss(0.5).fires(at(loss=loss)) is fires


def test_every_seconds() -> None:
    one = EverySeconds(10)
    times = [0.0, 9.9, 10.0, 25.0]
    assert [t for t in times if one.fires(at(seconds=t))] == [10.0, 25.0]


def test_and() -> None:
    assert run(TriggerAnd(SeveralIteration(2), Odd()), epochs=2, steps=5) == []
    assert run(TriggerAnd(EveryEpoch(), Odd(), MaxIteration(2)), epochs=3, steps=5) == [5, 15]


def test_and_with_time() -> None:
    both = TriggerAnd(EveryEpoch(), EverySeconds(5))
    assert run(both, epochs=6, steps=2) == [6, 12]


def test_or() -> None:
    assert run(TriggerOr(EveryEpoch(), SeveralIteration(3)), epochs=2, steps=4) == [3, 4, 6, 8]


def test_or_with_time() -> None:
    either = TriggerOr(SeveralIteration(4), EverySeconds(3))
    assert run(either, epochs=1, steps=12) == [3, 4, 7, 8, 11, 12]


def test_one_alone_is_enough() -> None:
    assert run(TriggerAnd(Odd()), epochs=1, steps=3) == run(TriggerOr(Odd()), 1, 3) == [1, 3]


@pytest.mark.parametrize("one", EACH, ids=repr)
def test_pickling(one: Trigger) -> None:
    assert pickle.loads(pickle.dumps(one)) == one


def test_pickling_of_several() -> None:
    either = pickle.loads(pickle.dumps(TriggerOr(*EACH)))
    assert either.triggers == tuple(EACH)
    assert repr(either) == repr(TriggerOr(*EACH))


@pytest.mark.parametrize("kind", [SeveralIteration, MaxEpoch, MaxIteration])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_counts_are_checked(kind: type[Trigger], value: object) -> None:
    with pytest.raises(InputError, match="whole number"):
        kind(value)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [MaxScore, MinLoss, EverySeconds])
@pytest.mark.parametrize("value", [math.nan, True, "1", None])
def test_numbers_are_checked(kind: type[Trigger], value: object) -> None:
    with pytest.raises(InputError, match="number"):
        kind(value)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [0, -0.5])
def test_seconds_are_more_than_none(value: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        EverySeconds(value)


def test_numbers_of_other_kinds() -> None:
    assert SeveralIteration(np.int64(2)).fires(at(4))
    assert MaxScore(Fraction(1, 2)).fires(at(score=0.6))
    assert EverySeconds(np.float32(1)).seconds == 1


@pytest.mark.parametrize("kind", [TriggerAnd, TriggerOr])
def test_only_triggers_combine(kind: type[TriggerAnd | TriggerOr]) -> None:
    with pytest.raises(InputError, match="EveryEpoch"):
        kind(EveryEpoch(), "EveryEpoch")  # type: ignore[arg-type]


def test_arguments_go_by_their_known_names() -> None:
    assert SeveralIteration(interval=2) == SeveralIteration(2)
    assert (MaxEpoch(max=1).max, MaxIteration(max=2).max) == (1, 2)
    assert (MaxScore(max=0.9).max, MinLoss(min=0.1).min) == (0.9, 0.1)


@pytest.mark.parametrize("text", ["EveryEpoch", "everyepoch", "EVERYEPOCH"])
def test_convert_text(text: str) -> None:
    assert Trigger.convert_trigger(text) == EveryEpoch()


def test_convert_other_text() -> None:
    with pytest.raises(ValueError, match="EveryIteration.*SeveralIteration"):
        Trigger.convert_trigger("EveryIteration")


@pytest.mark.parametrize("value", [None, 5, EACH[1], Odd()])
def test_convert_passes_on(value: object) -> None:
    assert Trigger.convert_trigger(value) is value


def test_trigger_is_a_base_only() -> None:
    with pytest.raises(TypeError):
        Trigger()  # type: ignore[abstract]


def test_all_names_are_there() -> None:
    assert {type(one).__name__ for one in EACH} < set(trigger.__all__)
