"""A trial of each kind of fault that needs a Spark of its own.

A file for itself: where two processes share the tests, one runs these and the other the others.
"""

from collections.abc import Callable
from typing import Any

import pytest

Facts = dict[str, Any]
TrialOf = Callable[[str], Facts]

pytestmark = [pytest.mark.trial, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("kind", ["host", "driver", "dynamic"])
def test_fit_ends_and_is_exact(ended_well: TrialOf, kind: str) -> None:
    ended_well(kind)


def test_copies_take_the_place_of_shards_of_a_lost_host(trial_of: TrialOf) -> None:
    trial = trial_of("host")
    assert trial["rows_once"], trial
    assert (trial["notes"]["copies used"], trial["notes"]["computed again"]) == (1, 0), trial


def test_driver_resumes_inside_the_epoch(trial_of: TrialOf) -> None:
    trial = trial_of("driver")
    assert trial["losses"] > 0
    assert trial["notes"]["ranks"] in ([2, 2], [2, 1], [2, 4])
    assert trial["notes"]["resumed"] % 100


def test_executors_on_demand_are_used(trial_of: TrialOf) -> None:
    # Spark starts them by itself: all may be there before the first rank is ready.
    worlds = trial_of("dynamic")["notes"]["worlds"]
    assert worlds[-1] == 3, worlds
