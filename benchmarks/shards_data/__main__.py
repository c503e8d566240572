"""One contender, in a process of its own: `python -m shards_data NAME JOB.json RUNS.json`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from shards_data.job import Job, Run

CONTENDERS = {
    "ours-spark": "shards_data.ours:spark_backend",
    "ours-pandas": "shards_data.ours:pandas_backend",
    "pandas": "shards_data.peers:pandas_and_torch",
    "pandas-on-spark": "shards_data.peers:pandas_on_spark",
    "limit": "shards_data.peers:limit",
}


def main(name: str, order: str, answer: str) -> None:
    job = Job(**json.loads(Path(order).read_text()))
    module, _, function = CONTENDERS[name].partition(":")
    runs: list[Run] = getattr(importlib.import_module(module), function)(job)
    Path(answer).write_text(json.dumps([asdict(run) for run in runs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
