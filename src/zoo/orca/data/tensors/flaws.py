"""Cells that cannot be used: counted where they are found, raised once, with their number.

Cells that can be used and are seldom meant, as NaN among the features, are counted like them and
told in one warning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo.errors import ColumnError

__all__ = [
    "Flaw",
    "add_flaw",
    "bad_rows",
    "count_infinite",
    "count_weightless",
    "raise_flaws",
    "raise_weightless",
    "tell_remarks",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flaw:
    """Rows of a column that cannot be used.

    Attributes:
        column: The column.
        kind: `null`, `nan`, `ragged`, `inexact`, `overflow`, `layout`, `weight`, `text` or
            `undecodable`; of a remark `infinite` or `weightless`.
        rows: How many rows of the batch.
        example: What was found, for the message.
    """

    column: str
    kind: str
    rows: int
    example: str = ""


def add_flaw(total: dict[tuple[str, str], Flaw], flaw: Flaw) -> None:
    """Add to what was counted of this column and kind; the first example is kept."""
    key = (flaw.column, flaw.kind)
    before = total.get(key, Flaw(*key, 0))
    total[key] = replace(
        before, rows=before.rows + flaw.rows, example=before.example or flaw.example
    )


def bad_rows(bad: np.ndarray) -> int:
    """Rows with any bad element."""
    return int(np.count_nonzero(bad.reshape(len(bad), -1).any(axis=1)))


def count_infinite(total: dict[tuple[str, str], Flaw], column: str, values: np.ndarray) -> None:
    """Count the rows that hold NaN or an infinite number."""
    if values.dtype.kind != "f" or not values.size:
        return
    with np.errstate(all="ignore"):
        # Adding up is quick, and one such number is enough to show in the sum.
        if np.isfinite(values.sum()):
            return
    if rows := bad_rows(~np.isfinite(values)):
        add_flaw(total, Flaw(column, "infinite", rows))


def count_weightless(total: dict[tuple[str, str], Flaw], column: str, factors: np.ndarray) -> None:
    """Count the rows that weigh nothing.

    Args:
        total: What was remarked.
        column: Of the weights.
        factors: Of shape (rows, factors of the weight).
    """
    if rows := bad_rows(factors == 0):
        add_flaw(total, Flaw(column, "weightless", rows))


def raise_weightless(remarks: Sequence[Flaw], rows: int) -> None:
    """Raise an error when no row weighs anything.

    Args:
        remarks: Of all tasks.
        rows: Rows of all of them.

    Raises:
        ColumnError: It is so.
    """
    found = [remark for remark in remarks if remark.kind == "weightless"]
    if found and sum(remark.rows for remark in found) == rows:
        raise ColumnError(
            f"weights of which some are more than 0, in column '{found[0].column}'",
            f"0 in all {rows} rows",
            "Name another column for sample_weight_col, or other classes in class_weight.",
        )


def tell_remarks(remarks: Sequence[Flaw], rows: int) -> None:
    """Say once what the tasks remarked.

    Args:
        remarks: Of all of them.
        rows: Rows of all of them.
    """
    total: dict[tuple[str, str], Flaw] = {}
    for remark in remarks:
        if remark.kind == "infinite":
            add_flaw(total, remark)
    if not total:
        return
    columns = sorted(total.values(), key=lambda f: -f.rows)
    found = ", ".join(f"'{f.column}' in {f.rows}" for f in columns)
    _log.warning(
        "NaN or infinite numbers in column %s of %d rows: one of them makes most models NaN. If "
        "it is not meant, fill or drop them: df.fillna(0, ['%s']) or df.dropna(subset=['%s']).",
        found, rows, columns[0].column, columns[0].column,
    )  # fmt: skip


_FLAWS = {
    "null": (
        "no nulls",
        "null",
        "Fill or drop them: df.fillna(0, ['{c}']) or df.dropna(subset=['{c}']), or inside arrays "
        "with pyspark.sql.functions.transform.",
    ),
    "nan": ("labels that are numbers", "NaN", "Drop them: df.dropna(subset=['{c}'])."),
    "ragged": (
        "one shape in all rows",
        "another shape",
        "Pad or cut the arrays to one length; for images give the decoder a size.",
    ),
    "inexact": (
        "numbers that the dtype of the tensor holds exactly",
        "others",
        "Keep whole numbers whole with decoders={{'{c}': 'int64'}} and an entry of their own in "
        "feature_cols; if rounding does no harm, cast the column in Spark.",
    ),
    "overflow": (
        "numbers that the dtype of the tensor can hold",
        "larger ones",
        "Scale them, or ask for decoders={{'{c}': 'float64'}}.",
    ),
    "weight": (
        "weights of 0 or more",
        "others",
        "Take those rows out, or give them a weight: 0 leaves a row out of the loss.",
    ),
    "layout": (
        "shards that all look like the first",
        "others",
        "Give every shard the same keys and the same number of arrays.",
    ),
    "text": (
        "nothing but texts, str or bytes",
        "other things",
        "Convert them with astype(str) in transform_shard.",
    ),
    "undecodable": (
        "cells that the decoder can read",
        "undecodable bytes",
        "Remove those rows, or correct the decoder.",
    ),
}


def raise_flaws(flaws: Sequence[Flaw]) -> None:
    """Raise one error for what the tasks found.

    Raises:
        ColumnError: Naming the column with the most bad rows, the rows, and the remedy.
    """
    total: dict[tuple[str, str], Flaw] = {}
    for flaw in flaws:
        add_flaw(total, flaw)
    if not total:
        return
    worst, *others = sorted(total.values(), key=lambda f: -f.rows)
    expected, what, remedy = _FLAWS[worst.kind]
    shown = f" ({worst.example})" if worst.example else ""
    also = "".join(f"; also '{f.column}': {f.kind} in {f.rows}" for f in others)
    raise ColumnError(
        f"{expected} in column '{worst.column}'",
        f"{what} in {worst.rows} row{'s' if worst.rows != 1 else ''}{shown}{also}",
        remedy.format(c=worst.column),
    )
