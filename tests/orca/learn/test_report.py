"""The report of a fit: its sums and its table."""

from dataclasses import replace

from zoo.orca.learn.report import End, FitReport, RankTimes, RoundFacts, rank_times
from zoo.orca.learn.steps import EpochStats

ROUNDS = (
    RoundFacts(3, 1.5, 6.0, End.RANK_LOST),
    RoundFacts(2, 0.5, 3.0, End.CHANGED),
    RoundFacts(3, 0.25, 2.0, End.DONE),
)


def report(**changes: object) -> FitReport:
    ranks = (
        RankTimes(0, 1_500, 0.2, 1.0, 4.0, 1.0, seconds=6.0, steps=60),
        RankTimes(1, 1_500, 0.3, 0.5, 4.5, 1.0, seconds=6.0, steps=60),
    )
    made = FitReport(10.0, 1.0, 3.0, 6.0, 1_000, 3, 80_000, ranks)
    return replace(made, **changes)  # type: ignore[arg-type]


def epoch(number: int, own_rows: int) -> EpochStats:
    return EpochStats(
        number, steps=5, rows=20, own_rows=own_rows, data_s=0.1, compute_s=0.2, sync_s=0.3,
        seconds=0.7,
    )  # fmt: skip


def test_epochs_of_a_rank_are_summed() -> None:
    first, second = rank_times([[epoch(1, 12), epoch(1, 8)], [epoch(2, 10), epoch(2, 10)]], {1: 2})
    assert (first.rows, second.rows) == (22, 18)
    assert (first.ready_s, second.ready_s) == (0.0, 2)
    assert (first.data_s, first.compute_s, first.sync_s) == (0.2, 0.4, 0.6)
    assert (first.seconds, first.steps) == (1.4, 10)


def test_a_rank_that_came_later_has_its_own_epochs_only() -> None:
    first, second = rank_times([[epoch(1, 20)], [epoch(2, 10), epoch(2, 10)]], {})
    assert (first.rows, second.rows) == (30, 10)
    assert second.steps == 5


def test_no_epochs_are_no_ranks() -> None:
    assert rank_times([], {0: 1.0}) == ()


def test_rates() -> None:
    assert report().rows_per_s == 300
    assert report().steady_rows_per_s == 500
    assert report().steps == 60


def test_rates_of_nothing() -> None:
    empty = report(seconds=0.0, train_s=0.0, rows=0, epochs=0, ranks=())
    assert (empty.rows_per_s, empty.steady_rows_per_s, empty.steps) == (0, 0, 0)


def test_rounds_tell_starts_and_losses() -> None:
    changed = report(rounds=ROUNDS)
    assert changed.first_start_s == 1.5
    assert changed.change_s == 0.75
    assert changed.losses == 1


def test_a_slow_first_step_is_counted_once() -> None:
    slow = report(seconds=7.25, start_s=0.25, rounds=(RoundFacts(2, 1.5, 6.0, End.DONE),))
    assert slow.first_start_s == 0.25
    assert slow.change_s == 0.0


def test_table_of_an_undisturbed_fit() -> None:
    lines = str(report(rounds=ROUNDS[-1:])).splitlines()
    assert lines == [
        "3 epochs of 1,000 rows in 10.00 s (300 rows/s; 500 while training)",
        "ingest 1.00 s, start 3.00 s, train 6.00 s",
        "rank   rows   ready    data  compute  synchronise",
        "   0  1,500  0.20 s  1.00 s   4.00 s       1.00 s",
        "   1  1,500  0.30 s  0.50 s   4.50 s       1.00 s",
    ]


def test_table_shows_rounds_when_there_were_several() -> None:
    lines = str(report(rounds=ROUNDS)).splitlines()[5:]
    assert lines == [
        "3 rounds, 1 of them cut short by a loss",
        "round  ranks   start     all  ended because",
        "    1      3  1.50 s  6.00 s  a rank was lost",
        "    2      2  0.50 s  3.00 s  ranks changed",
        "    3      3  0.25 s  2.00 s  done",
    ]


def test_table_shows_validation_callbacks_and_snapshots_when_there_were_any() -> None:
    rank = replace(report().ranks[0], observe_s=0.5, snapshot_s=0.25)
    text = str(report(ranks=(rank,), validate_s=0.75, epochs=1))
    assert text.startswith("1 epoch of 1,000 rows")
    assert "validate 0.75 s, of train, copying for snapshots 0.25 s" in text
    assert text.splitlines()[2].endswith("callbacks")
    assert text.splitlines()[3].endswith("0.50 s")
