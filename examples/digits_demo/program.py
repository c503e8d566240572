"""The program around the pipeline: its arguments, its clock, and itself once more."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import psutil

__all__ = ["Stopwatch", "arguments", "fresh_process"]

_WIDTH = 72


class Stopwatch:
    """Prints what was done and how long it took, counted from the start of the process.

    Attributes:
        seconds: By stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = self._last = psutil.Process().create_time()

    def __call__(
        self, stage: str, said: str, table: pd.DataFrame | Sequence[Mapping[str, float]] = ()
    ) -> None:
        """End a stage.

        Args:
            stage: One word.
            said: What was done in it.
            table: Shown below: counts of images, or the epochs of a training.
        """
        now = time.time()
        self.seconds[stage], self._last = now - self._last, now
        print(f"{stage:10}{said:{_WIDTH - 19}}{self.seconds[stage]:7.1f} s", flush=True)
        if len(table):
            _show(table if isinstance(table, pd.DataFrame) else _epochs(table))

    @property
    def total(self) -> float:
        """Seconds since the process started."""
        return time.time() - self._start


def _epochs(epochs: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """The first, every fifth and the last epoch."""
    names = {"epoch": "epoch", "train_loss": "loss", "val_loss": "held-out loss"}
    frame = pd.DataFrame(epochs)[[*names, "val_Accuracy"]]
    chosen = (frame.epoch % 5 == 0) | (frame.epoch == 1) | (frame.epoch == len(frame))
    return frame[chosen].rename(columns={**names, "val_Accuracy": "held-out accuracy"})


def _show(table: pd.DataFrame) -> None:
    text = table.to_string(index=False, max_rows=20, float_format="{:.4f}".format)
    print("", *(f"{'':10}{line}" for line in text.splitlines()), "", sep="\n", flush=True)


def arguments(doc: str | None) -> tuple[argparse.Namespace, Stopwatch]:
    """Read the command line, and start the clock."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of class folders; the digits when left out")
    parser.add_argument("--out", default="out/digits", help="folder for everything written")
    parser.add_argument("--cluster", choices=("local", "standalone"), default="local")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64, help="over all ranks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out = str(Path(chosen.out))
    return chosen, Stopwatch()


def fresh_process(option: str) -> str:
    """Run this program once more with an option, and give back what it prints."""
    command = [sys.executable, *sys.argv, option]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
