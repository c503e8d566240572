"""Two trials of each kind of fault: fits end, exactly, and nothing is left of them."""

from collections.abc import Callable
from typing import Any

import pytest

Facts = dict[str, Any]
TrialsOf = Callable[[str], list[Facts]]

CLUSTER = "killed,inside,two,shards,stopped,full,damaged,arriving"
PROGRAMS = dict.fromkeys(CLUSTER.split(","), CLUSTER) | {
    "driver": "driver",
    "dynamic": "dynamic",
}

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(params=list(PROGRAMS))
def trials(request: pytest.FixtureRequest, trials_of: TrialsOf) -> list[Facts]:
    """The two trials of a kind that could be made here."""
    kind = request.param
    found = [t for t in trials_of(PROGRAMS[kind]) if t["kind"] == kind]
    if skipped := [t["skipped"] for t in found if t["skipped"]]:
        pytest.skip(skipped[0])
    assert len(found) == 2
    return found


def test_fit_ends_and_is_exact(trials: list[Facts]) -> None:
    for trial in trials:
        assert trial["ended"], trial["error"]
        assert trial["difference"] <= 1e-9
        assert trial["rows_once"]
        assert not trial["left"]


def one_kind(trials_of: TrialsOf, kind: str) -> list[Facts]:
    return [t for t in trials_of(PROGRAMS[kind]) if t["kind"] == kind]


@pytest.mark.parametrize("kind", ["killed", "inside", "two", "shards", "driver"])
def test_the_fault_cost_a_rank(trials_of: TrialsOf, kind: str) -> None:
    assert [t["losses"] > 0 for t in one_kind(trials_of, kind)] == [True, True]


def test_blow_landed_inside_all_reduce(trials_of: TrialsOf) -> None:
    assert all(t["notes"]["inside"] for t in one_kind(trials_of, "inside"))


def test_deleted_shards_are_computed_again(trials_of: TrialsOf) -> None:
    assert any(t["notes"]["restored"] for t in one_kind(trials_of, "shards"))


def test_resume_takes_the_snapshot_before_a_damaged_one(trials_of: TrialsOf) -> None:
    for trial in one_kind(trials_of, "damaged"):
        assert trial["notes"]["taken"] < trial["notes"]["newest"]
        assert trial["notes"]["told"]


def test_driver_resumes_inside_the_epoch_with_other_ranks(trials_of: TrialsOf) -> None:
    found = one_kind(trials_of, "driver")
    assert [t["notes"]["ranks"] for t in found] == [[2, 2], [2, 1]]
    assert all(t["notes"]["resumed"] % 100 for t in found)


@pytest.mark.parametrize("kind", ["arriving", "dynamic"])
def test_new_executors_are_used_within_two_rounds(trials_of: TrialsOf, kind: str) -> None:
    # Only where Spark starts executors by itself may all be there before the first rank is ready.
    allowed = (1, 2) if kind == "arriving" else (0, 1, 2)
    assert all(t["notes"]["rounds_to_grow"] in allowed for t in one_kind(trials_of, kind))
