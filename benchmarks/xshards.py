"""How fast CSV files become a trained model: read, transform, one epoch; ours, peers, the limit.

Every contender does the same work in a process of its own, one after the other. `--gigabytes 5`
makes larger files and is about memory: only ours runs, unless `--only` says more. The files are
deleted at the end. docs/benchmarks.md tells how the figures are made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from contest import contend, leave_on_terminate, show_machine
from shards_data.__main__ import CONTENDERS
from shards_data.job import Job, Run, row_bytes, write_csv
from shards_data.report import memory_claims, process_table, ratio_table, run_table
from tabular.report import claim_table

_ROWS, _FEWEST = 2_000_000, 2_000
_FILES = 4
# The pandas backend reads a file whole, so one must be small beside the memory of a worker.
_FILE_BYTES = 1.5e8
# Shards lie in Spark's store as well as those of the training; the CSV files go last.
_HELD_AT_ONCE = 3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help=f"times {_ROWS:,} rows")
    parser.add_argument("--gigabytes", type=float, help="of CSV files, instead of a scale")
    parser.add_argument(
        "--rounds", type=int, default=2,
        help="times that each Spark session does the work (default 2; once with --gigabytes)",
    )  # fmt: skip
    parser.add_argument("--memory", default="4g", help="of the driver's JVM (default 4g)")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help=f"some of {','.join(CONTENDERS)}"
    )
    parser.add_argument("--folder", help="where files lie for a while (default: the system's)")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    chosen = parser.parse_args()
    if unknown := set(chosen.only or ()) - set(CONTENDERS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(CONTENDERS)}")
    if chosen.only is None:
        chosen.only = ["ours-spark"] if chosen.gigabytes else list(CONTENDERS)
    return chosen


def make_files(job: Job, chosen: argparse.Namespace) -> int:
    """Write the CSV files, and return their rows."""
    width = row_bytes()
    rows: int = max(_FEWEST, round(_ROWS * chosen.scale))
    if chosen.gigabytes:
        rows = round(chosen.gigabytes * 1e9 / width)
    needed, free = rows * width * _HELD_AT_ONCE, shutil.disk_usage(job.folder).free
    if free < needed:
        raise SystemExit(f"{free / 1e9:.1f} GB are free of the {needed / 1e9:.1f} GB needed")
    size = write_csv(job, rows, max(_FILES, round(rows * width / _FILE_BYTES)))
    print(f"{rows:,} rows of 12 columns, {size / 1e9:.2f} GB in {len(job.files)} files")
    return rows


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    facts = show_machine()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-", dir=chosen.folder) as folder:
        job = Job(folder, chosen.memory, 1 if chosen.gigabytes else chosen.rounds)
        rows = make_files(job, chosen)
        for name in chosen.only:
            print(f"running {name} ...", flush=True)
            answer = contend("shards_data", name, asdict(job), folder)
            runs += [Run(**run) for run in answer]
    found = memory_claims(runs)
    parts = [run_table(runs, rows), ratio_table(runs), process_table(runs), claim_table(found)]
    print("\n" + "\n\n".join(filter(None, parts)))
    if chosen.json:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(chosen).items()}
        numbers = {
            "machine": facts,
            "options": options,
            "rows": rows,
            "runs": [
                asdict(run) | {"seconds": run.seconds, "rows_per_s": rows / run.seconds}
                for run in runs
            ],
            "claims": [asdict(claim) | {"holds": claim.holds} for claim in found],
        }
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
