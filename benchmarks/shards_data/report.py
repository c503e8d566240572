"""Runs as tables."""

from __future__ import annotations

from collections.abc import Sequence

from tabular.report import Claim, aligned

from shards_data.job import NOISE, Run

_STAGES = ("read", "transform", "train")
_WORKER_MIB = 2048


def run_table(runs: Sequence[Run], rows: int) -> str:
    """A line for each contender.

    Args:
        runs: What they gave back.
        rows: In the CSV files.
    """
    heads = ("", *(f"{stage} s" for stage in _STAGES), "in all s", "rows/s", "loss", "Spark s")
    lines: list[tuple[str, ...]] = [heads]
    for run in runs:
        seconds = [f"{run.stages[stage]:.2f}" for stage in _STAGES]
        all_s, rate = f"{run.seconds:.2f}", f"{rows / run.seconds:,.0f}"
        lines.append((run.name, *seconds, all_s, rate, f"{run.loss:.5f}", f"{run.start_s:.1f}"))
    note = f"loss: the mean of the epoch; the label's noise alone gives {NOISE**2:.5f}"
    return aligned(lines) + f"\n{note}"


def ratio_table(runs: Sequence[Run]) -> str:
    """How many times as fast ours is as everyone else."""
    lines = [("ratio of rows/s", "")]
    for our in (run for run in runs if run.name.startswith("ours")):
        others = (run for run in runs if not run.name.startswith("ours"))
        lines += [
            (f"{our.name} : {other.name}", f"{other.seconds / our.seconds:.2f}") for other in others
        ]
    return aligned(lines) if len(lines) > 1 else ""


def process_table(runs: Sequence[Run]) -> str:
    """A line for each Python process of each contender."""
    lines = [("peak memory", "RSS MiB", "anonymous MiB")]
    for run in runs:
        for what, rss, anonymous in run.processes:
            lines.append((f"{run.name}: {what}", f"{rss:,.0f}", f"{anonymous:,.0f}"))
    return aligned(lines)


def memory_claims(runs: Sequence[Run]) -> list[Claim]:
    """The promise about each process of ours; files that are mapped count, too."""
    return [
        Claim(f"{run.name}: RSS of the largest Python process, MiB", worst, _WORKER_MIB, True)
        for run in runs
        if run.name.startswith("ours") and run.processes
        for worst in [max(rss for _, rss, _ in run.processes)]
    ]
