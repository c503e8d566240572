"""How fast a Spark DataFrame becomes a trained torch model: ours, two peers, and the limit.

Every contender does the same job in a process of its own, one after the other. `--help` shows what
can be chosen; docs/benchmarks.md tells how the figures are made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from contest import add_only
from tabular.__main__ import CONTENDERS
from tabular.job import Job, Outcome, Run
from tabular.report import (
    claim_table,
    claims,
    figure_table,
    loss_notes,
    ratio_table,
    run_table,
)

# Above this a frame is not held by Spark, and contenders that need all rows in memory get fewer.
_IN_MEMORY_ROWS = 4_000_000
_REDUCED_ROWS = 1_000_000
_LONGEST_S = 3600


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=32, help="float columns (default 32)")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1024, 8192],
        help="rows of a step over all ranks; peers run the first only (default 1024 8192)",
    )  # fmt: skip
    parser.add_argument("--ranks", type=int, default=2, help="also the cores of Spark (default 2)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--memory", default="4g", help="of the driver's JVM (default 4g)")
    parser.add_argument(
        "--no-persist", action="store_true",
        help="Spark computes the frame anew each time it is read, so every fit ingests",
    )  # fmt: skip
    parser.add_argument(
        "--peer-rows", type=int, help="rows of TorchDistributor, which takes minutes on all of them"
    )
    add_only(parser, CONTENDERS)
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def plan(chosen: argparse.Namespace, folder: str) -> dict[str, Job]:
    """The job of each contender. They differ only in rows, and only where that is said."""
    whole = Job(
        rows=chosen.rows,
        columns=chosen.columns,
        batches=tuple(chosen.batch),
        ranks=chosen.ranks,
        epochs=chosen.epochs,
        persisted=not chosen.no_persist and chosen.rows <= _IN_MEMORY_ROWS,
        memory=chosen.memory,
        folder=folder,
    )
    jobs = dict.fromkeys(chosen.only, whole)
    if chosen.rows > _IN_MEMORY_ROWS:
        print(f"{chosen.rows:,} rows: the frame is computed lazily, and not persisted")
        if jobs.pop("topandas", None):
            print("toPandas is left out: the rows are too many for the driver")
        _reduce(jobs, "limit", _REDUCED_ROWS)
        _reduce(jobs, "torchdistributor", _REDUCED_ROWS)
    _reduce(jobs, "torchdistributor", chosen.peer_rows or chosen.rows)
    return jobs


def _reduce(jobs: dict[str, Job], name: str, rows: int) -> None:
    if name in jobs and rows < jobs[name].rows:
        jobs[name] = replace(jobs[name], rows=rows)
        print(f"{name} runs on {rows:,} rows: compare its rows/s, which start-up makes lower")


def contend(name: str, job: Job) -> Outcome:
    """Run one contender in a Python of its own."""
    order, answer = Path(job.folder) / f"{name}-job.json", Path(job.folder) / f"{name}.json"
    log = Path(job.folder) / f"{name}.log"
    order.write_text(json.dumps(asdict(job)))
    # Spark's workers import the model from here too.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "tabular", name, str(order), str(answer)],
            stdout=output, stderr=subprocess.STDOUT, timeout=_LONGEST_S, check=False,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise SystemExit(f"{name} failed with status {done.returncode}:\n{tail}")
    found = json.loads(answer.read_text())
    fields = Run.__dataclass_fields__
    runs = [Run(**{k: v for k, v in run.items() if k in fields}) for run in found["runs"]]
    return Outcome(runs, found["figures"])


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> None:
    chosen, facts = arguments(), machine()
    # Leave in the ordinary way, which ends the contender and removes the files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    total = Outcome()
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-") as folder:
        jobs = plan(chosen, folder)
        for name, job in jobs.items():
            print(f"running {name} ...", flush=True)
            outcome = contend(name, job)
            total.runs += outcome.runs
            total.figures |= outcome.figures
    whole = next(iter(jobs.values()))
    found = claims(whole, total.runs, total.figures)
    parts = [
        run_table(total.runs),
        loss_notes(total.runs),
        ratio_table(total.runs),
        figure_table(total.figures),
        claim_table(found),
    ]
    print("\n" + "\n\n".join(filter(None, parts)))
    if chosen.json:
        numbers = {
            "machine": facts,
            "options": {k: v for k, v in vars(chosen).items() if k != "json"},
            "runs": [run.numbers() for run in total.runs],
            "figures": total.figures,
            "claims": [asdict(claim) | {"holds": claim.holds} for claim in found],
        }
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
