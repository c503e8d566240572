"""A frame of images through a residual network: ours on each runtime, two peers, and the limits.

The limit of a runtime is a bare loop on the same cores over arrays in memory: the faster of one
process with all cores, and one process on each. Every contender is a program of its own.
docs/benchmarks.md tells how the figures are made.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from contest import add_only, contend, leave_on_terminate, show_machine
from scoring.__main__ import CONTENDERS
from scoring.job import Job, write_images

_TITLES = {
    "torch": "Zoo, torch",
    "torch_loop": "limit: loop in torch",
    "udf": "pandas UDF in torch, by hand",
    "ray": "Ray Data in torch",
    "keras": "Zoo, Keras on TensorFlow",
    "keras_loop": "limit: loop in Keras",
    "onnx": "Zoo, ONNX Runtime",
    "onnx_loop": "limit: loop in ONNX Runtime",
    "openvino": "Zoo, OpenVINO",
    "openvino_loop": "limit: loop in OpenVINO",
    "int8": "Zoo, OpenVINO in 8 bits",
    "int8_loop": "limit: loop in OpenVINO in 8 bits",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="images (default 20,000)")
    parser.add_argument("--size", type=int, default=64, help="height and width (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a call (default 32)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are shown (default 3)")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    add_only(parser, CONTENDERS)
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def best(found: Any) -> tuple[float, str]:
    """The median, and for a limit which of its forms was the faster."""
    if isinstance(found, list):
        return median(found), ""
    name = min(found, key=lambda form: median(found[form]))
    return median(found[name]), f" ({name})"


def ratios(seconds: dict[str, float]) -> list[str]:
    """What is compared, as sentences."""
    told = []
    for name in ("torch", "keras", "onnx", "openvino", "int8"):
        if {name, f"{name}_loop"} <= seconds.keys():
            part = seconds[f"{name}_loop"] / seconds[name]
            told.append(f"{_TITLES[name]}: {part:.2f} of the bare loop")
    for name, other in (("torch", "udf"), ("torch", "ray"), ("int8", "torch")):
        if {name, other} <= seconds.keys():
            times = seconds[other] / seconds[name]
            told.append(f"{_TITLES[name]}: {times:.2f} times as fast as {_TITLES[other]}")
    return told


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    numbers: dict[str, Any] = {"machine": show_machine(), "contenders": {}}
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-") as folder:
        job = Job(chosen.rows, chosen.size, chosen.batch, chosen.cores, chosen.rounds, folder)
        write_images(job)
        accuracy = contend("scoring", "models", asdict(job), folder)
        print(f"\n{job.rows:,} images of {job.shape}, batches of {job.batch}, {job.cores} cores:")
        seconds = {}
        for name in chosen.only:
            found = contend("scoring", name, asdict(job), folder)
            if found is None:
                continue
            numbers["contenders"][name] = found
            seconds[name], form = best(found)
            rate = job.rows / seconds[name]
            print(
                f"  {_TITLES[name]}: {seconds[name]:.1f} s, {rate:,.0f} images/s{form}", flush=True
            )
    for line in ratios(seconds):
        print(f"  {line}")
    print(
        f"  accuracy on {accuracy['rows']:.0f} digits: {accuracy['floats']:.4f} in floats, "
        f"{accuracy['int8']:.4f} in 8 bits"
    )
    numbers["digits"] = accuracy
    if chosen.json:
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
