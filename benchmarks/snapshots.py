"""What a snapshot every epoch costs a fit with a model of 100 MB.

The same fit runs with and without `model_dir`, in turn, in one Spark session. `--help` shows what
can be chosen; docs/benchmarks.md has figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from contest import show_machine
from pyspark.sql import functions as F
from torch import nn

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.driver.snapshots import SnapshotStore
from zoo.orca.learn.pytorch import Estimator

_COLUMNS = 64


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=5000, help="of the two hidden layers")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="pairs of fits (default 2)")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="adam")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def model(config: dict[str, Any]) -> nn.Module:
    width = config["width"]
    return nn.Sequential(
        nn.Linear(_COLUMNS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 1), nn.Flatten(0),
    )  # fmt: skip


def optimizer(net: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if config["optimizer"] == "adam" else torch.optim.SGD
    return kind(net.parameters(), lr=1e-4)


def fit(chosen: argparse.Namespace, frame: Any, model_dir: str | None) -> dict[str, float]:
    estimator = Estimator.from_torch(
        model=model,
        optimizer=optimizer,
        loss=nn.MSELoss(),
        config={"width": chosen.width, "optimizer": chosen.optimizer, "seed": 1},
        workers_per_node=chosen.ranks,
        model_dir=model_dir,
    )
    estimator.fit(
        frame, epochs=chosen.epochs, batch_size=256,
        feature_cols=[f"x{k}" for k in range(_COLUMNS)], label_cols=["y"],
    )  # fmt: skip
    report = estimator.report
    assert report is not None
    found = {"seconds": report.seconds, "train_s": report.train_s}
    if model_dir is not None:
        snapshot = next(SnapshotStore(model_dir).candidates())
        found["snapshot_mib"] = Path(str(snapshot.place)).stat().st_size / 2**20
    return found


def main() -> None:
    chosen = arguments()
    facts = show_machine()
    size = sum(p.numel() for p in model({"width": chosen.width}).parameters()) * 4 / 1e6
    print(f"model of {size:.0f} MB, {chosen.optimizer}, {chosen.ranks} ranks")
    init_orca_context(cores=chosen.ranks, memory="4g")
    spark = OrcaContext.get_spark_session()
    columns = [F.rand(k).cast("float").alias(f"x{k}") for k in range(_COLUMNS)]
    frame = spark.range(chosen.rows, numPartitions=4).select(*columns, F.rand(99).alias("y"))
    frame = frame.persist()
    fit(chosen, frame, None)  # imports, and the frame as shards
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((fit(chosen, frame, None), fit(chosen, frame, folder)))
    stop_orca_context()
    plain = statistics.median(p["seconds"] for p, _ in pairs)
    kept = statistics.median(k["seconds"] for _, k in pairs)
    cost = (kept - plain) / chosen.epochs
    print(f"without snapshots {plain:.2f} s, with one every epoch {kept:.2f} s")
    print(f"snapshot of {pairs[0][1]['snapshot_mib']:.0f} MiB: {cost:.2f} s each")
    print(f"epochs of {plain / chosen.epochs:.1f} s: {kept / plain - 1:+.1%} (bound 5%)")
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": facts, "pairs": pairs, "cost_s": cost}))


if __name__ == "__main__":
    main()
