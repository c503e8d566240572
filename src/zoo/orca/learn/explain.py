"""What bounds a fit, in words, with the numbers that say so."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zoo.orca.learn.report import FitReport, RankTimes

__all__ = ["Explanation", "explain"]

# What takes a smaller part of the call is not worth a change: a tenth is about what two runs of
# the same fit differ by.
_SHARE = 0.1
# A rank is slow when it is busy so much longer than the others: unequal hosts and chance make a
# few per cent, and ingest itself levels what is above 1.5 times the rows.
_SLOW = 1.25
# It has more rows, rather than a slower host, when it has so many times those of the others.
_MORE_ROWS = 1.2
# A rank that has fewer rows in a step spends it on reading weights, and more ranks do not help.
_FEW_ROWS = 32
_LINES = 7


@dataclass(frozen=True)
class _Part:
    """A part of the time.

    Attributes:
        seconds: Of the whole call.
        name: What it was.
        advice: The numbers behind it, and what to change.
    """

    seconds: float
    name: str
    advice: str


@dataclass(frozen=True)
class _Steps:
    """The epochs as the rank saw them that nobody waits for less: it sets the pace.

    Attributes:
        pace: That rank.
        data_s: Waiting for batches.
        compute_s: Computing.
        sync_s: Agreeing. Others wait longer, and what they wait is in this rank's other parts.
        observe_s: Callbacks and copies for snapshots.
        slow_s: How much shorter the epochs were if it were only as busy as the mean; 0 when it
            stands out too little. Then not in the other parts.
        factor: How many times as long as the others it is busy.
    """

    pace: RankTimes
    data_s: float
    compute_s: float
    sync_s: float
    observe_s: float
    slow_s: float = 0.0
    factor: float = 1.0


class Explanation(str):
    """Lines of text, which notebooks show as lines."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, self.splitlines()))


def explain(report: FitReport) -> Explanation:
    """Say what bounds a fit, largest part first, and what to change.

    Args:
        report: Of the fit, `estimator.report`.

    Returns:
        A line on the whole, then one for each part that is a tenth of the time or more.
    """
    ranks = len(report.ranks)
    head = (
        f"{_seconds(report.seconds)} for {_count(report.epochs, 'epoch')} of "
        f"{_count(report.rows, 'row')} on {_count(ranks, 'rank')}, {report.rows_per_s:,.0f} rows/s."
    )
    parts = [make(report) for make in _WHOLE]
    if report.ranks and report.train_s > 0:
        steps = _steps(report)
        parts += [make(report, steps) for make in _IN_STEPS]
    parts.sort(key=lambda part: -part.seconds)
    large = [p for p in parts if p.seconds >= _SHARE * report.seconds > 0]
    # Computing is what a fit is for: there is something to say when nothing else is larger.
    shown = [p for p in large if p.name != "computing" or p is large[0]]
    lines = [
        f"{p.seconds / report.seconds:.0%} ({_seconds(p.seconds)}) {p.name}: {p.advice}"
        for p in shown[:_LINES]
    ]
    return Explanation("\n".join([head, *lines]))


def _ingest(report: FitReport) -> _Part:
    megabytes = report.bytes_ingested / 1e6
    rate = megabytes / report.ingest_s if report.ingest_s else 0.0
    advice = (
        f"{megabytes:,.1f} MB of rows were computed and written, {rate:,.1f} MB/s. Later fits of a "
        "frame that is persisted skip this; more epochs in one fit make it weigh less."
    )
    return _Part(report.ingest_s, "ingest", advice)


def _start(report: FitReport) -> _Part:
    start_s = report.first_start_s
    ready_s = max((r.ready_s for r in report.ranks), default=0.0)
    if ready_s >= start_s / 2:
        advice = (
            f"a rank needs {_seconds(ready_s)} to build the model and open the data. Do downloads "
            "and other slow work once, outside the creator functions."
        )
    else:
        advice = (
            f"{_seconds(start_s - ready_s)} of it until tasks, Python and its packages are there. "
            "Train more epochs in one fit; later fits of the same session start faster."
        )
    return _Part(start_s, "start", advice)


def _changes(report: FitReport) -> _Part:
    rounds, lost = len(report.rounds), report.losses
    advice = f"{_count(rounds, 'round')}, {_seconds(report.change_s / max(1, rounds - 1))} each. "
    if 2 * lost >= rounds - 1:
        ends = sorted({r.ended for r in report.rounds if r.ended.is_loss})
        advice += (
            f"{lost} ended by a loss ({', '.join(ends)}): look at the executors' logs, and at "
            "their memory."
        )
    else:
        advice += (
            f"{rounds - 1 - lost} ended so that more ranks could join: a smaller "
            "Recovery(round_share=...) allows that less often."
        )
    return _Part(report.change_s, "changes of ranks", advice)


def _validation(report: FitReport) -> _Part:
    epochs = max(1, report.epochs)
    advice = (
        f"{_seconds(report.validate_s / epochs)} after each epoch, beside "
        f"{_seconds(report.train_s / epochs)} of training. Give a sample as validation_data, and "
        "evaluate on all of it at the end."
    )
    return _Part(report.validate_s, "validation", advice)


def _rest(report: FitReport) -> _Part:
    known = (report.ingest_s, report.first_start_s, report.change_s)
    rest = report.seconds - sum(known) - report.train_s - report.validate_s
    advice = "the state on its way to the driver, and tasks that end. More epochs in one fit help."
    return _Part(max(0.0, rest), "between and after the rounds", advice)


def _data(report: FitReport, steps: _Steps) -> _Part:
    each = _seconds(steps.data_s / max(1, report.steps))
    if report.bytes_ingested:
        advice = (
            f"{each} in a step. Where images are decoded anew in every epoch, a pipeline without "
            "random steps, or smaller images, need less; else the local disks are slow, or the "
            "executors have too little memory to keep what is read."
        )
    else:
        advice = f"{each} in a step. Give the DataLoader num_workers, or a cheaper dataset."
    return _Part(steps.data_s, "waiting for data", advice)


def _compute(report: FitReport, steps: _Steps) -> _Part:
    each, ranks = _seconds(steps.compute_s / max(1, report.steps)), len(report.ranks)
    advice = f"{each} in a step on each of {_count(ranks, 'rank')}."
    if _rows_of_rank(report) > _FEW_ROWS:
        advice += (
            f" More ranks on more cores share the {_rows_of_step(report):,.0f} rows of a step; "
            "precision='bf16' helps where the processor computes in it."
        )
    else:
        advice += (
            f" Its {_rows_of_rank(report):,.0f} rows are too few to fill it: a larger batch_size "
            "takes fewer steps."
        )
    return _Part(steps.compute_s, "computing", advice)


def _sync(report: FitReport, steps: _Steps) -> _Part:
    count, ranks = max(1, report.steps), len(report.ranks)
    advice = (
        f"{_seconds(steps.sync_s / count)} in each of {_count(count, 'step')}, beside "
        f"{_seconds(steps.compute_s / count)} of computing. A larger batch_size than "
        f"{_rows_of_step(report):,.0f} rows agrees less often (gradient_accumulation saves memory)"
    )
    if ranks > 1 and _rows_of_rank(report) <= _FEW_ROWS:
        advice += f"; {ranks} ranks with {_rows_of_rank(report):,.0f} rows each are too many for it"
    return _Part(steps.sync_s, "agreeing", f"{advice}.")


def _slow(report: FitReport, steps: _Steps) -> _Part:
    pace = steps.pace
    others = [r for r in report.ranks if r is not pace]
    rows = pace.rows / max(1.0, _mean([r.rows for r in others])) if others else 1.0
    said = f"rank {pace.rank} is busy {steps.factor:.1f} times as long as the others. "
    # After a change of ranks not all rows are counted, so they prove nothing.
    if len(report.rounds) <= 1 and rows >= _MORE_ROWS:
        said += f"It has {rows:.1f} times their rows: "
        said += (
            "spread the frame with repartition."
            if report.bytes_ingested
            else "let the data creator give every rank about the same."
        )
    elif _above(others, pace, lambda r: r.data_s) > _above(others, pace, lambda r: r.compute_s):
        waits = _seconds(pace.data_s), _seconds(_mean([r.data_s for r in others]))
        said += "It waits {} for data, they {}: look at the disk of its host.".format(*waits)
    else:
        took = _seconds(pace.compute_s), _seconds(_mean([r.compute_s for r in others]))
        said += "It computes {}, they {}: its host is slower or has other work.".format(*took)
    return _Part(steps.slow_s, "waiting for one rank", said)


def _observers(report: FitReport, steps: _Steps) -> _Part:
    copies, count = report.snapshot_s, max(1, report.steps)
    if 2 * copies > steps.observe_s:
        advice = (
            f"{_seconds(copies)} of it to copy the state for snapshots. A rarer "
            "checkpoint_trigger, such as EverySeconds(600), or a larger Recovery(hold_s=...)."
        )
    else:
        advice = f"{_seconds(steps.observe_s / count)} in a step. Do less in on_step_end."
    return _Part(steps.observe_s, "callbacks and snapshots", advice)


_WHOLE: tuple[Callable[[FitReport], _Part], ...] = (_ingest, _start, _changes, _validation, _rest)
_IN_STEPS: tuple[Callable[[FitReport, _Steps], _Part], ...] = (
    _data, _compute, _sync, _slow, _observers,
)  # fmt: skip


def _steps(report: FitReport) -> _Steps:
    """Split the epochs into parts that add up to them."""
    ranks = report.ranks
    # Who came later has fewer seconds, so shares of each rank's own time are compared.
    pace = min(ranks, key=lambda r: _part_of(r, r.sync_s, report))
    own = _Steps(
        pace,
        *(
            _part_of(pace, s, report) * report.train_s
            for s in (pace.data_s, pace.compute_s, pace.sync_s, pace.observe_s)
        ),
    )
    others = [r for r in ranks if r is not pace]
    if not others:
        return own
    busy = [_part_of(r, r.data_s + r.compute_s, report) for r in ranks]
    mine = _part_of(pace, pace.data_s + pace.compute_s, report)
    rest = (sum(busy) - mine) / len(others)
    factor = mine / rest if rest else 1.0
    slow_s = (mine - _mean(busy)) * report.train_s
    if factor < _SLOW or slow_s < _SHARE * report.seconds:
        return own
    level = _mean(busy) / mine
    return replace(
        own,
        data_s=own.data_s * level,
        compute_s=own.compute_s * level,
        slow_s=slow_s,
        factor=factor,
    )


def _part_of(rank: RankTimes, seconds: float, report: FitReport) -> float:
    """Which part of its own epochs a rank spent so."""
    return seconds / (rank.seconds or report.train_s)


def _above(
    others: Sequence[RankTimes], rank: RankTimes, get: Callable[[RankTimes], float]
) -> float:
    return get(rank) - _mean([get(r) for r in others])


def _rows_of_step(report: FitReport) -> float:
    return report.rows * report.epochs / max(1, report.steps)


def _rows_of_rank(report: FitReport) -> float:
    return _rows_of_step(report) / max(1, len(report.ranks))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
