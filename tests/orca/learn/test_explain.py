"""What bounds a fit, in words: made-up reports, one for each cause."""

from dataclasses import replace
from typing import Any

import pytest

from zoo.orca.learn.explain import explain
from zoo.orca.learn.report import End, FitReport, RankTimes, RoundFacts


def rank(number: int, data_s: float, compute_s: float, sync_s: float, **more: Any) -> RankTimes:
    facts = {"rows": 5_000, "ready_s": 0.2, "seconds": 10.0, "steps": 100, **more}
    return RankTimes(
        number, data_s=data_s, compute_s=compute_s, sync_s=sync_s,
        **facts,
    )  # fmt: skip


EVEN = (rank(0, 0.2, 9.6, 0.2), rank(1, 0.2, 9.6, 0.2))


def report(**changes: Any) -> FitReport:
    """Ten seconds of computing and little else."""
    seconds = changes.pop("beside", 0.5) + 10.0
    made = FitReport(seconds, 0.1, 0.4, 10.0, 10_000, 1, 4_000_000, EVEN)
    return replace(made, **changes)


def loss_rounds(count: int, ended: End) -> tuple[RoundFacts, ...]:
    first = RoundFacts(2, 0.4, 4.0, ended)
    return (
        first,
        *[RoundFacts(2, 2.0, 4.0, ended)] * (count - 2),
        RoundFacts(2, 2.0, 4.0, End.DONE),
    )


def largest(made: FitReport) -> str:
    return explain(made).splitlines()[1]


def line_with(made: FitReport, words: str) -> str:
    return next(line for line in explain(made).splitlines() if words in line)


def test_a_notebook_shows_lines() -> None:
    made = report()
    assert made._repr_html_() == f"<pre>{made}</pre>"
    assert explain(made)._repr_html_().count("<br>") == explain(made).count("\n") > 0


def test_first_line_tells_the_whole() -> None:
    head = explain(report()).splitlines()[0]
    assert head == "10.5 s for 1 epoch of 10,000 rows on 2 ranks, 952 rows/s."


def test_all_is_computing() -> None:
    _, *lines = explain(report()).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("91% (9.6 s) computing: 96 ms in a step on each of 2 ranks.")
    assert "More ranks on more cores share the 100 rows of a step" in lines[0]


def test_steps_too_small_to_share_are_told_to_grow() -> None:
    many = tuple(replace(r, steps=1_000) for r in EVEN)
    line = largest(report(ranks=many))
    assert "Its 5 rows are too few to fill it: a larger batch_size" in line
    assert "More ranks" not in line


def test_ingest() -> None:
    line = largest(report(beside=20.0, ingest_s=19.0))
    assert line.startswith("63% (19.0 s) ingest: 4.0 MB of rows")
    assert "0.2 MB/s" in line
    assert "persisted" in line


def test_start_of_tasks() -> None:
    line = largest(report(beside=21.0, start_s=20.0))
    assert line.startswith("65% (20.0 s) start: 19.8 s of it until tasks")
    assert "more epochs in one fit" in line


def test_start_of_a_slow_model() -> None:
    slow = tuple(replace(r, ready_s=15.0) for r in EVEN)
    line = largest(report(beside=21.0, start_s=20.0, ranks=slow))
    assert "a rank needs 15.0 s to build the model" in line


def test_start_is_that_of_the_first_round() -> None:
    rounds = (RoundFacts(2, 12.0, 25.0, End.DONE),)
    assert "(12.0 s) start" in largest(report(beside=21.0, start_s=20.0, rounds=rounds))


def test_data_of_shards() -> None:
    ranks = (rank(0, 7.0, 2.0, 1.0), rank(1, 7.0, 2.0, 1.0))
    line = largest(report(ranks=ranks))
    assert line.startswith("67% (7.0 s) waiting for data: 70 ms in a step. Where images")


def test_data_of_loaders() -> None:
    ranks = (rank(0, 7.0, 2.0, 1.0), rank(1, 7.0, 2.0, 1.0))
    line = largest(report(ranks=ranks, bytes_ingested=0))
    assert "num_workers" in line
    assert "images" not in line


def test_agreeing() -> None:
    ranks = tuple(rank(k, 0.1, 3.0, 6.9, steps=2_000) for k in range(2))
    line = largest(report(ranks=ranks))
    assert line.startswith("66% (6.9 s) agreeing: 3.45 ms in each of 2,000 steps, beside 1.5 ms")
    assert "A larger batch_size than 5 rows" in line
    assert "2 ranks with 2 rows each are too many for it." in line


def test_agreeing_in_large_steps_blames_no_ranks() -> None:
    ranks = tuple(rank(k, 0.1, 3.0, 6.9) for k in range(2))
    assert "too many" not in largest(report(ranks=ranks))


def test_a_rank_with_more_rows() -> None:
    ranks = (rank(0, 0.5, 3.5, 6.0, rows=3_000), rank(1, 0.5, 9.0, 0.5, rows=7_000))
    line = line_with(report(ranks=ranks), "one rank")
    assert line.startswith("26% (2.7 s) waiting for one rank: rank 1 is busy 2.4 times as long")
    assert "It has 2.3 times their rows: spread the frame" in line


def test_a_rank_with_more_rows_of_a_loader() -> None:
    ranks = (rank(0, 0.5, 3.5, 6.0, rows=3_000), rank(1, 0.5, 9.0, 0.5, rows=7_000))
    assert "let the data creator give" in explain(report(ranks=ranks, bytes_ingested=0))


def test_a_rank_that_computes_slowly() -> None:
    ranks = (rank(0, 0.1, 2.5, 7.4), rank(1, 0.1, 2.5, 7.4), rank(2, 0.1, 9.8, 0.1))
    line = line_with(report(ranks=ranks), "one rank")
    assert "rank 2 is busy 3.8 times as long as the others. It computes 9.8 s, they 2.5 s" in line


def test_a_rank_that_waits_for_its_disk() -> None:
    ranks = (rank(0, 8.0, 1.9, 0.1), rank(1, 0.5, 1.9, 7.6))
    assert "rank 0 is busy 4.1 times" in explain(report(ranks=ranks))
    assert "It waits 8.0 s for data, they 500 ms: look at the disk" in explain(report(ranks=ranks))


def test_parts_of_a_slow_rank_add_up() -> None:
    ranks = (rank(0, 0.0, 4.0, 6.0), rank(1, 0.0, 9.5, 0.5))
    lines = explain(report(ranks=ranks)).splitlines()
    assert lines[1].startswith("64% (6.8 s) computing")
    assert lines[2].startswith("26% (2.7 s) waiting for one rank")
    assert len(lines) == 3


@pytest.mark.parametrize(("slowest", "named"), [(8.5, False), (9.9, True)])
def test_a_rank_that_is_hardly_slower_is_not_named(slowest: float, named: bool) -> None:
    ranks = (rank(0, 0.0, 7.0, 3.0), rank(1, 0.0, slowest, 10 - slowest))
    assert ("one rank" in explain(report(ranks=ranks))) is named


def test_a_rank_that_came_later_is_compared_by_its_own_time() -> None:
    late = rank(2, 0.05, 2.4, 0.05, seconds=2.5, steps=25)
    assert "one rank" not in explain(report(ranks=(*EVEN, late)))


def test_rows_prove_nothing_after_a_change_of_ranks() -> None:
    ranks = (rank(0, 0.1, 9.5, 0.4, rows=9_000), rank(1, 0.1, 3.0, 6.9, rows=1_000))
    text = explain(report(ranks=ranks, rounds=loss_rounds(2, End.RANK_LOST), beside=4.0))
    assert "It computes 9.5 s" in text
    assert "times their rows" not in text


def test_losses() -> None:
    rounds = loss_rounds(4, End.RANK_LOST)
    line = line_with(report(rounds=rounds, beside=7.0, start_s=6.4), "rounds")
    assert line.startswith("35% (6.0 s) changes of ranks: 4 rounds, 2.0 s each. 3 ended by a loss")
    assert "(a rank was lost): look at the executors' logs" in line


def test_ranks_that_join_too_often() -> None:
    rounds = loss_rounds(4, End.CHANGED)
    text = explain(report(rounds=rounds, beside=7.0, start_s=6.4))
    assert "3 ended so that more ranks could join: a smaller Recovery(round_share=...)" in text


def test_validation() -> None:
    line = largest(report(validate_s=30.0, beside=31.0, epochs=2))
    assert line.startswith("73% (30.0 s) validation: 15.0 s after each epoch, beside 5.0 s of")


def test_snapshots() -> None:
    ranks = (rank(0, 0.1, 5.0, 0.1, observe_s=4.8, snapshot_s=4.5), rank(1, 0.1, 5.0, 4.9))
    line = line_with(report(ranks=ranks), "snapshots")
    assert line.startswith("46% (4.8 s) callbacks and snapshots: 4.5 s of it to copy the state")


def test_callbacks() -> None:
    ranks = tuple(rank(k, 0.1, 5.0, 0.1, observe_s=4.8) for k in range(2))
    assert "48 ms in a step. Do less in on_step_end." in explain(report(ranks=ranks))


def test_what_is_in_no_other_part() -> None:
    assert "(4.6 s) between and after the rounds" in explain(report(beside=5.1))


def test_parts_are_ordered_and_few() -> None:
    ranks = (rank(0, 3.0, 3.0, 4.0), rank(1, 3.0, 3.0, 4.0))
    made = report(ranks=ranks, beside=13.0, ingest_s=6.0, start_s=5.0)
    _, *lines = explain(made).splitlines()
    assert [line.split(") ")[1].split(":")[0] for line in lines] == [
        "ingest", "start", "agreeing", "waiting for data",
    ]  # fmt: skip


def test_small_parts_are_left_out() -> None:
    text = explain(report(ingest_s=1.0, beside=1.5))
    assert "ingest" not in text


def test_a_fit_that_had_nothing_to_do() -> None:
    made = FitReport(0.5, 0.1, 0.4, 0.0, 0, 0, 0, ())
    assert explain(made).splitlines()[0] == "500 ms for 0 epochs of 0 rows on 0 ranks, 0 rows/s."
    assert "(400 ms) start" in explain(made)
