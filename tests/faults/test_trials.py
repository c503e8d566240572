"""A trial of each kind of fault that hits executors: they share a Spark."""

from collections.abc import Callable
from typing import Any

import pytest

Facts = dict[str, Any]
TrialOf = Callable[[str], Facts]

KINDS = (
    "killed", "keras", "graph", "inside", "two", "again", "five", "offering", "last state",
    "shards", "stopped", "full", "damaged", "arriving",
)  # fmt: skip
TOGETHER = ",".join(KINDS)

pytestmark = [pytest.mark.trial, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("kind", KINDS)
def test_fit_ends_and_is_exact(ended_well: TrialOf, kind: str) -> None:
    ended_well(kind)


@pytest.mark.parametrize("kind", ["killed", "keras", "graph", "inside", "two", "shards"])
def test_the_fault_cost_a_rank(trial_of: TrialOf, kind: str) -> None:
    assert trial_of(kind)["losses"] > 0


def test_blow_landed_inside_all_reduce(trial_of: TrialOf) -> None:
    assert trial_of("inside")["notes"]["inside"]


def test_deleted_shards_are_computed_again(trial_of: TrialOf) -> None:
    trial = trial_of("shards")
    # The victim may have none: then there was nothing to compute again.
    assert bool(trial["notes"]["restored"]) == bool(trial["notes"]["shards"]), trial


def test_resume_takes_the_snapshot_before_a_damaged_one(trial_of: TrialOf) -> None:
    notes = trial_of("damaged")["notes"]
    assert notes["taken"] < notes["newest"]
    assert notes["told"]


def test_new_executors_are_used(trial_of: TrialOf) -> None:
    worlds = trial_of("arriving")["notes"]["worlds"]
    assert worlds[-1] == 3, worlds
    assert worlds[0] < 3, worlds
