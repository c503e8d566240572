"""The arguments of the program, and how it says what it did."""

from __future__ import annotations

import argparse

import pandas as pd
from pyspark.sql import DataFrame

__all__ = ["ERRORS", "arguments", "say"]

ERRORS = """
SELECT station, round(mean(abs(predicted - rides)), 1) AS model,
       round(mean(abs(last_week * level - rides)), 1) AS as_last_week,
       round(mean(rides), 1) AS mean_rides
FROM {rows} GROUP BY station ORDER BY station
"""


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
    first = pd.Timestamp("2024-07-01")
    chosen.test_from = first + pd.Timedelta(days=chosen.days - max(4, chosen.days // 12))
    return chosen


def say(stage: str, text: str, table: DataFrame | None = None) -> None:
    """Print a line, one word and what was done, and a small table below it."""
    print(f"{stage:10}{text}", flush=True)
    if table is not None:
        lines = table.toPandas().to_string(index=False).splitlines()
        print("", *(f"{'':10}{line}" for line in lines), "", sep="\n", flush=True)
