"""Pictures with what was found on them, and what is there."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from yolo.boxes import Array

__all__ = ["sheet"]

_COLUMNS, _SIDE = 4, 2.9
# Told apart by most eyes, on dark pictures and on bright ones.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")


def sheet(
    images: Iterable[tuple[bytes, Array, Array]], names: Sequence[str], threshold: float = 0.3
) -> Figure:
    """Draw images side by side: white dots around what is there, a colour around what was found.

    Args:
        images: Bytes of an image, what was found (n, 6): corners in pixels, score, class; and what
            is there (m, 5 or more): corners in pixels, class.
        names: Of the classes.
        threshold: The lowest score that is drawn.
    """
    shown = list(images)
    rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = Figure(figsize=(_SIDE * _COLUMNS, _SIDE * rows), layout="constrained")
    for place, (data, found, truth) in enumerate(shown, 1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        axes.imshow(Image.open(io.BytesIO(data)).convert("RGB"))
        axes.set_axis_off()
        for box in truth:
            axes.add_patch(_around(box, color="white", linestyle=":", linewidth=1.6))
        for box in found[found[:, 4] >= threshold]:
            number = int(box[5])
            colour = _COLOURS[number % len(_COLOURS)]
            axes.add_patch(_around(box, color=colour, linewidth=1.6))
            axes.text(
                box[0], box[1], f"{names[number]} {box[4]:.2f}", fontsize=6.5, va="bottom",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8}, parse_math=False,
                clip_on=True,
            )  # fmt: skip
    return figure


def _around(box: Array, **style: object) -> Rectangle:
    return Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, **style)
