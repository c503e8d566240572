"""What a fit puts up with, when it takes in ranks, and whom it names as slow."""

import logging
import time

import pytest

from zoo.cluster.ranks.messages import Peer, Pulse
from zoo.errors import InputError, RankError
from zoo.orca.learn.driver.policies import Budget, Growth, Stalls
from zoo.orca.learn.recovery import Recovery


def loss(number: int = 1) -> RankError:
    return RankError("ranks that run", f"loss {number}", "Look.")


# Losses


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"retries": True},
        {"retries": 1.5},
        {"within_s": 0},
        {"hold_s": -1.0},
        {"round_share": 0.0},
        {"stall_s": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recovery(**wrong)


def test_holding_may_be_switched_off() -> None:
    assert Recovery(hold_s=None).hold_s is None


def test_so_many_losses_are_put_up_with(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(Recovery(retries=2))
    with caplog.at_level(logging.WARNING):
        budget.spend(loss(1))
        budget.spend(loss(2))
    assert "going on after loss 2 of at most 2" in caplog.text
    with pytest.raises(RankError, match="loss 3") as caught:
        budget.spend(loss(3))
    assert "This was loss 3 within 600 s; Recovery(retries=2)" in caught.value.__notes__[0]


def test_without_retries_the_first_loss_is_raised_as_it_is() -> None:
    with pytest.raises(RankError) as caught:
        Budget(Recovery(retries=0)).spend(loss())
    assert not hasattr(caught.value, "__notes__")


def test_old_losses_do_not_count() -> None:
    budget = Budget(Recovery(retries=1, within_s=0.05))
    for number in range(3):
        budget.spend(loss(number))
        time.sleep(0.06)
    assert len(budget.losses) == 1


# Growth


def test_change_waits_until_it_costs_little() -> None:
    growth = Growth(share=0.5)  # a change is guessed to cost half a second
    assert not growth.wants_change(1, 2)
    growth.training()
    assert not growth.wants_change(1, 2)
    growth._training_since = time.monotonic() - 1.1
    assert growth.wants_change(1, 2)


def test_cost_of_a_change_is_measured() -> None:
    growth = Growth(share=0.5)
    growth.training()
    growth._training_since = time.monotonic() - 10.0
    assert growth.wants_change(1, 2)
    growth.ended()
    assert growth._asked is not None
    growth._asked = (time.monotonic() - 30.0, 1)
    growth.begins(2)
    growth.training()
    growth._training_since = time.monotonic() - 50.0
    assert not growth.wants_change(2, 3)
    growth._training_since = time.monotonic() - 61.0
    assert growth.wants_change(2, 3)


def test_cost_of_a_change_is_not_that_of_a_later_loss() -> None:
    growth = Growth(share=1.0)
    growth.training()
    growth._training_since = time.monotonic() - 1.0
    assert growth.wants_change(1, 2)
    growth.ended()
    growth.begins(2)
    growth.training()
    cost = growth._cost_s
    time.sleep(0.1)
    growth.ended()  # a rank was lost
    growth.begins(2)
    growth.training()
    assert growth._cost_s == cost


def test_change_that_brought_nothing_makes_the_next_one_wait_longer() -> None:
    growth = Growth(share=1.0)
    growth.training()
    growth._training_since = time.monotonic() - 0.6
    assert growth.wants_change(1, 2)
    growth.ended()
    growth.begins(1)
    growth.training()
    cost = growth._cost_s
    growth._training_since = time.monotonic() - 1.5 * cost
    assert not growth.wants_change(1, 2)
    growth._training_since = time.monotonic() - 2.5 * cost
    assert growth.wants_change(1, 2)


# Stalls


def peer(rank: int) -> Peer:
    return Peer("executor", "host", "machine", "127.0.0.1", 100 + rank, rank=rank)


def pulses(*facts: tuple[str, float]) -> dict[int, Pulse]:
    return {
        rank: Pulse(time.monotonic(), {"doing": doing, "for_s": long, "epoch": 2, "step": 7})
        for rank, (doing, long) in enumerate(facts)
    }


def test_rank_that_holds_up_the_others_is_named(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls(10.0)
    with caplog.at_level(logging.WARNING):
        stalls.look([peer(0), peer(1)], pulses(("waiting for other ranks", 60), ("computing", 60)))
    assert len(caplog.records) == 1
    text = caplog.text
    assert "rank 1 on machine (process 101) has been computing for 60 s (epoch 2, step 7)" in text


def test_stall_is_not_said_all_the_time(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls(10.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            stalls.look([peer(0)], pulses(("waiting for data", 60.0)))
    assert len(caplog.records) == 1


def test_nothing_is_said_of_ranks_that_go_on(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls(10.0)
    with caplog.at_level(logging.WARNING):
        stalls.look([peer(0), peer(1)], pulses(("computing", 9.0)))
    assert caplog.records == []
