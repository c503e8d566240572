"""The arguments of the program, its clock, and how it says what it did."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from zoo.orca.data.image import ImageDecoder, read_parquet

__all__ = ["Pace", "arguments", "say"]

_DECODER = ImageDecoder(size=(48, 48))


class Pace:
    """How many images a second each part of the program took, for a table at the end."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, float]] = []

    def note(self, what: str, images: int, seconds: float) -> None:
        """Add a line."""
        self._rows.append((what, images, seconds))

    def measure(self, what: str, images: int, work: Callable[[], Any]) -> Any:
        """Do something, and add how long it took."""
        begun = time.perf_counter()
        made = work()
        self.note(what, images, time.perf_counter() - begun)
        return made

    def read(self, path: str) -> None:
        """Read a dataset once in each way, decoding every image, and add a line for each."""
        for workers in (0, 2):
            loader = read_parquet("dataloader", path, batch_size=64, columns=["image", "label"],
                                  decoders={"image": _DECODER},
                                  config={"num_workers": workers})  # fmt: skip
            self._pass(f"torch DataLoader, {workers} workers", (len(b["label"]) for b in loader))
        if importlib.util.find_spec("tensorflow"):
            # TensorFlow tells of oneDNN on stderr, whatever the log level.
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            batches = read_parquet("tf_dataset", path, batch_size=64, columns=["image", "label"],
                                   decoders={"image": _DECODER})  # fmt: skip
            self._pass("tf.data.Dataset", (len(b["label"]) for b in batches))

    def _pass(self, what: str, sizes: Iterable[int]) -> None:
        begun = time.perf_counter()
        self.note(what, sum(sizes), time.perf_counter() - begun)

    def __str__(self) -> str:
        lines = pd.DataFrame(
            [(what, f"{n:,}", f"{s:.2f}", f"{n / s:,.0f}") for what, n, s in self._rows],
            columns=["", "images", "seconds", "images/s"],
        )
        return lines.to_string(index=False)


def arguments(doc: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="how many files to make")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", default="out/million_images", help="folder for what is written")
    return parser.parse_args()


def say(stage: str, text: str) -> None:
    """Print a line: one word, and what was done."""
    print(f"{stage:10}{text}", flush=True)
