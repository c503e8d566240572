"""Limits that follow from the number of ranks and the size of messages."""

import pytest

from zoo.cluster.ranks.timing import Timing


@pytest.mark.parametrize("ranks", [2, 64, 640, 960, 10_000])
def test_silence_is_longer_than_the_pause_between_signs_of_life(ranks: int) -> None:
    timing = Timing()
    assert timing.silence_s(ranks) >= 5 * timing.pause_s(ranks)
    assert timing.silence_s(ranks) >= 15.0


def test_many_ranks_say_less_often_that_they_live() -> None:
    assert [Timing().pause_s(n) for n in (1, 64, 640)] == [1.0, 1.0, 10.0]


def test_longer_messages_may_pause_for_longer() -> None:
    assert Timing().stall_s(0) == 15.0
    assert Timing().stall_s(2_000_000_000) == 55.0
