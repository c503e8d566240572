"""The page that shows what was trained, with the images that are hard to read."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from digits_demo.program import Stopwatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["hard_ones", "write_report"]

_COLUMNS, _MOST = 8, 32


def write_report(
    folder: str,
    est: Any,
    found: Mapping[str, Any],
    counts: pd.DataFrame,
    doubtful: pd.DataFrame,
    lap: Stopwatch,
) -> None:
    """Write `report.html`, and say where it is.

    Args:
        folder: Where to write it.
        est: The estimator.
        found: What its `evaluate` gave.
        counts: Images of each `class`: `train` and `held_out`.
        doubtful: Images with `label`, `read` and `scores`, wrong ones first.
        lap: The clock of the program.
    """
    names = [str(name) for name in counts["class"]]
    matrix = np.array(found["ConfusionMatrix"])
    images, wrong = int(matrix.sum()), int(matrix.sum() - matrix.trace())
    stages = pd.DataFrame({"stage": lap.seconds.keys(), "seconds": lap.seconds.values()})
    path = est.report_page(
        f"{folder}/report.html",
        title=f"{int(counts.train.sum()) + images:,} images of {len(names)} classes",
        classes=names,
        sections={
            "Read wrongly, or almost": hard_ones(names, doubtful),
            "The images": counts,
            "The whole program": stages,
        },
    )
    print(
        f"\nHeld-out accuracy  {found['Accuracy']:.4f}  ({wrong} of {images:,} images read wrongly)"
    )
    print(f"Report             {path}\nTime               {lap.total:.0f} s in all")


def hard_ones(names: Sequence[str], doubtful: pd.DataFrame) -> Figure:
    """Images with what they show, what the model reads or nearly reads, and how sure it is."""
    # Here: the process that only reads the model draws nothing.
    from matplotlib.figure import Figure
    from PIL import Image

    shown = list(doubtful.head(_MOST).itertuples())
    rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = Figure(figsize=(1.25 * _COLUMNS, 1.6 * rows), layout="constrained")
    for place, row in enumerate(shown, 1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        axes.imshow(Image.open(io.BytesIO(row.image)).convert("RGB"), interpolation="nearest")
        axes.set_axis_off()
        sure = 1 / sum(math.exp(score - max(row.scores)) for score in row.scores)
        second = int(np.argsort(row.scores)[-2])
        said = f"read {names[row.read]}" if row.read != row.label else f"not {names[second]}"
        colour = "tab:red" if row.read != row.label else "black"
        text = f"{names[row.label]}, {said}\n{sure:.0%}"
        axes.set_title(text, fontsize=8, color=colour, parse_math=False)
    return figure
