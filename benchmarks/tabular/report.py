"""Results as tables, and what the project promises set against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabular.job import NOISE, Job, Run

FIRST, SECOND = "ours, first fit", "ours, second fit"
PEER, PANDAS = "TorchDistributor", "toPandas + torch"
LIMIT = "limit, sliced, 1 thread"
_HEADS = (
    "", "batch", "rows", "seconds", "rows/s in all", "rows/s steady", "first batch s", "last loss",
    "driver MiB", "rank MiB", "written MiB",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A promise, and what was measured.

    Attributes:
        text: The promise.
        measured: The figure.
        bound: What it has to reach.
        at_most: The bound is a ceiling.
    """

    text: str
    measured: float
    bound: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the promise was kept in this run."""
        return (self.measured <= self.bound) if self.at_most else (self.measured >= self.bound)


def run_table(runs: Sequence[Run]) -> str:
    """A line for each training."""
    lines: list[tuple[str, ...]] = [_HEADS] if runs else []
    for run in runs:
        numbers = (
            f"{run.seconds:.2f}", f"{run.rate:,.0f}", f"{run.steady_rate:,.0f}",
            _shown(run.first_batch_s, 2), _shown(run.loss, 5), _shown(run.driver_mib),
            _shown(run.rank_mib), _shown(run.written_mib),
        )  # fmt: skip
        lines.append((run.name, str(run.batch), f"{run.rows:,} x {len(run.epoch_s)}", *numbers))
    return aligned(lines)


def ratio_table(runs: Sequence[Run]) -> str:
    """Ours against everyone else at the same batch size."""
    lines = [("ratio of rows/s", "batch", "in all", "steady")]
    for our in (r for r in runs if r.name.startswith("ours")):
        for other in runs:
            if other.batch == our.batch and not other.name.startswith("ours"):
                in_all, steady = our.rate / other.rate, our.steady_rate / other.steady_rate
                name = f"{our.name} : {other.name}"
                lines.append((name, str(our.batch), f"{in_all:.2f}", f"{steady:.2f}"))
    return aligned(lines) if len(lines) > 1 else ""


def claims(job: Job, runs: Sequence[Run], figures: dict[str, float]) -> list[Claim]:
    """The promises for which this run has figures."""
    found: list[Claim] = []
    by_name = {run.name: run for run in runs if run.batch == job.batches[0]}
    if PEER in by_name:
        for name, bound in ((SECOND, 20), (FIRST, 12)):
            if name in by_name:
                ratio = by_name[name].rate / by_name[PEER].rate
                found.append(Claim(f"{name}: times the rows/s of {PEER}", ratio, bound))
    large = {run.name.split(",")[0]: run for run in runs if run.batch >= 8192 and _steady(run)}
    if {"ours", "limit"} <= large.keys():
        ratio = large["ours"].steady_rate / large["limit"].steady_rate
        text = f"steady epochs at batch {large['ours'].batch}: times plain torch on one thread"
        found.append(Claim(text, ratio, 1.3))
    if "export_rows_per_s" in figures:
        ratio = figures["ingest_rows_per_s"] / figures["export_rows_per_s"]
        found.append(Claim("ingest: times the rows/s of Spark's Arrow export", ratio, 0.8))
    peaks = [run.rank_mib for run in runs if run.name.startswith("ours") and run.rank_mib]
    if peaks:
        above = max(peaks) - figures["bare_rank_mib"]
        text = "anonymous memory of a rank above torch and model, MiB"
        found.append(Claim(text, above, 1024, at_most=True))
    return found


def _steady(run: Run) -> bool:
    return run.name.startswith("ours") or run.name == LIMIT


def claim_table(found: Sequence[Claim]) -> str:
    """A line for each promise."""
    if not found:
        return ""
    lines = [("claim", "bound", "measured", "")]
    for claim in found:
        bound = f"{'<=' if claim.at_most else '>='} {claim.bound:g}"
        verdict = "PASS" if claim.holds else "BELOW"
        lines.append((claim.text, bound, f"{claim.measured:.2f}", verdict))
    return aligned(lines)


def loss_notes(runs: Sequence[Run]) -> str:
    """Whether everyone learned the same; no loss can be below what the noise alone gives."""
    notes = []
    for batch in sorted({run.batch for run in runs}):
        losses = [r.loss for r in runs if r.batch == batch and r.loss is not None]
        notes.append(
            f"last losses at batch {batch}: {min(losses):.5f} to {max(losses):.5f} "
            f"(the label's noise alone: {NOISE**2:.5f})"
        )
    return "\n".join(notes)


def figure_table(figures: dict[str, float]) -> str:
    """A line for each figure that is no training."""
    return aligned([(name, f"{value:,.2f}") for name, value in figures.items()])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns under each other; the first to the left, the others to the right."""
    if not lines:
        return ""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rows = []
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        rows.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(rows)


def _shown(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
