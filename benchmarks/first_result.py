"""How long it takes from `python program.py` to the first result: ours, two peers, and the limits.

Every contender is a program of its own, started anew in every round. docs/benchmarks.md tells how
the figures are made.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from contest import add_only, contend, leave_on_terminate, show_machine
from first.__main__ import CONTENDERS
from tabular.job import Job

_SMALL = 1_000
_TITLES = {
    "ours": "Zoo",
    "loaded": "Zoo, a fresh program with a saved model",
    "topandas": "toPandas + torch",
    "torchdistributor": "TorchDistributor",
    "tuned": "TorchDistributor, tuned",
    "jvm": "limit: a Spark session",
    "torch": "limit: `import torch`",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[_SMALL, 1_000_000])
    parser.add_argument("--columns", type=int, default=32, help="float columns (default 32)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are shown (default 5)")
    parser.add_argument("--memory", default="4g", help="of the driver's JVM (default 4g)")
    add_only(parser, CONTENDERS)
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each part, in the order in which they came."""
    return {part: median(each[part] for each in rounds) for part in rounds[0]}


def show(rows: int, found: dict[str, dict[str, float]]) -> None:
    """A line for each contender."""
    print(f"\n{rows:,} rows, seconds (medians):")
    for name, parts in found.items():
        told = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
        print(f"  {_TITLES[name]}: {told}")


def ratios(found: dict[str, dict[str, float]]) -> list[str]:
    """What is compared, as sentences."""
    told = []
    fit = found.get("ours", {}).get("first fit")
    for peer in ("torchdistributor", "tuned", "topandas"):
        if fit and peer in found:
            times = found[peer]["first fit"] / fit
            told.append(f"first fit: {times:.1f} times as fast as {_TITLES[peer]}")
    if {"loaded", "jvm", "torch"} <= found.keys():
        limit = found["jvm"]["session"] + found["torch"]["import"]
        times = found["loaded"]["start to a prediction"] / limit
        told.append(f"a fresh program that predicts: {times:.2f} times a session and an import")
    return told


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    facts: dict[str, Any] = show_machine()
    numbers: dict[str, Any] = {"machine": facts, "rows": {}}
    for rows in chosen.rows:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen.only}
        with tempfile.TemporaryDirectory(prefix="zoo-benchmark-") as folder:
            batch = min(1024, max(32, rows // 10))
            job = Job(rows, chosen.columns, (batch,), 2, 1, True, chosen.memory, folder)
            for turn in range(chosen.rounds):
                for name in chosen.only:
                    order = {**asdict(job), "started": time.time()}
                    runs[name].append(contend("first", name, order, folder))
                print(f"  {rows:,} rows: round {turn + 1} of {chosen.rounds}", flush=True)
        found = {name: medians(each) for name, each in runs.items()}
        show(rows, found)
        for line in ratios(found):
            print(f"  {line}")
        numbers["rows"][rows] = runs
    if chosen.json:
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
