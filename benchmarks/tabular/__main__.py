"""One contender, in a process of its own: `python -m tabular NAME JOB.json OUTCOME.json`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tabular.job import Job, Outcome

CONTENDERS = {
    "ours": "tabular.ours:ours",
    "export": "tabular.ours:export",
    "limit": "tabular.plain:limit",
    "torchdistributor": "tabular.peers:torch_distributor",
    "topandas": "tabular.peers:to_pandas",
}


def main(name: str, order: str, answer: str) -> None:
    fields = json.loads(Path(order).read_text())
    job = Job(**{**fields, "batches": tuple(fields["batches"])})
    module, _, function = CONTENDERS[name].partition(":")
    outcome: Outcome = getattr(importlib.import_module(module), function)(job)
    runs = [run.numbers() for run in outcome.runs]
    Path(answer).write_text(json.dumps({"runs": runs, "figures": outcome.figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
