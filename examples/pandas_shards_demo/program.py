"""The arguments of the program, and how it says what it did."""

from __future__ import annotations

import argparse

from pyspark.sql import DataFrame

__all__ = ["arguments", "say"]


def arguments(doc: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=365, help="days of counts to make; from 30")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", default="out/pandas_shards", help="folder for what is written")
    chosen = parser.parse_args()
    if chosen.days < 30:
        parser.error("--days must be 30 or more: history takes a week, the test four days")
    return chosen


def say(stage: str, text: str, table: DataFrame | None = None) -> None:
    """Print a line, one word and what was done, and a small table below it."""
    print(f"{stage:10}{text}", flush=True)
    if table is not None:
        lines = table.toPandas().to_string(index=False).splitlines()
        print("", *(f"{'':10}{line}" for line in lines), "", sep="\n", flush=True)
