"""How fast Keras trains on a Spark DataFrame: ours, a peer, and Keras's own `fit` on arrays.

Every contender is a program of its own. docs/benchmarks.md tells how the figures are made.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from contest import add_only, contend, leave_on_terminate, show_machine
from keras_frame.__main__ import BACKEND, CONTENDERS
from tabular.job import Job

_TITLES = {
    "ours": "Zoo",
    "topandas": "toPandas + Keras",
    "limit": "limit: Keras's fit on arrays",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=32, help="float columns (default 32)")
    parser.add_argument("--batch", type=int, default=8192, help="rows of a step (default 8192)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2, help="of ours; threads of the others")
    parser.add_argument(
        "--backends", nargs="+", default=["tensorflow", "torch"], help="of Keras, jax among them"
    )
    parser.add_argument("--memory", default="4g", help="of the driver's JVM (default 4g)")
    add_only(parser, CONTENDERS)
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def steady(rows: int, run: dict[str, Any]) -> float:
    """Rows a second in epochs after the first."""
    return rows / median(run["epoch_s"][1:] or run["epoch_s"])


def show(job: Job, found: dict[str, dict[str, Any]]) -> None:
    """A line for each run, and the ratio to the limit."""
    top = steady(job.rows, found["limit"]["fit"]) if "limit" in found else None
    for name, runs in found.items():
        for turn, run in runs.items():
            rate, all_of_it = steady(job.rows, run), job.rows * job.epochs / run["seconds"]
            share = f", {rate / top:.2f} of the limit" if top else ""
            print(f"  {_TITLES[name]}, {turn}: {all_of_it:,.0f} rows/s in all, "
                  f"{rate:,.0f} in steady epochs{share}")  # fmt: skip


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    numbers: dict[str, Any] = {"machine": show_machine()}
    for backend in chosen.backends:
        with tempfile.TemporaryDirectory(prefix="zoo-benchmark-") as folder:
            job = Job(
                chosen.rows, chosen.columns, (chosen.batch,), chosen.ranks, chosen.epochs, True,
                chosen.memory, folder,
            )  # fmt: skip
            order = {**asdict(job), BACKEND: backend}
            answers = {name: contend("keras_frame", name, order, folder) for name in chosen.only}
        print(f"Keras on {backend}, {job.rows:,} rows, batch {chosen.batch:,}:")
        show(job, answers)
        numbers[backend] = answers
    if chosen.json:
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
