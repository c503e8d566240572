"""Charts of a training and of what it measured, drawn by matplotlib on any axes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import load_extra

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["as_svg", "draw_confusion", "draw_curves", "draw_pairs", "draw_residuals", "panels"]

# None is a measure of how good the model is.
_NO_SCORES = ("epoch", "batch_count", "num_samples", "last_train_loss", "restored")
# Of a confusion matrix: with more classes counts, and then names, could not be read.
_COUNTED, _NAMED = 12, 30
_NAME = 18
# What matplotlib draws in these colours gets those of the page, which follow light and dark.
_THEME = {
    "#010201": "--ink", "#010202": "--soft", "#010203": "--line",
    "#010204": "--blue", "#010205": "--orange", "#010206": "--violet",
}  # fmt: skip
_INK, _SOFT, _LINE, *_CURVES = _THEME


def panels(table: pd.DataFrame) -> dict[str, list[str]]:
    """What is drawn together: a loss with that of validation, and each other number alone.

    Args:
        table: A row for each epoch, as of `History.frame`.

    Returns:
        Columns by title.
    """
    names = [str(name) for name in table if name not in _NO_SCORES]
    losses: list[str] = [name for name in ("train_loss", "val_loss") if name in names]
    found = {"loss": losses}
    for name in names:
        if name in losses or (name == "lr" and len(set(table["lr"])) < 2):
            continue
        found.setdefault(name.removeprefix("val_"), []).append(name)
    found = {title: columns for title, columns in found.items() if columns}
    return found | ({"lr": found.pop("lr")} if "lr" in found else {})


def draw_curves(axes: Axes, title: str, curves: pd.DataFrame) -> None:
    """Numbers over the epochs, one line for each column."""
    from matplotlib.ticker import MaxNLocator

    for name, values in curves.items():
        axes.plot(curves.index, values, marker="o", markersize=3, label=str(name))
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(curves.columns) > 1:
        axes.legend()


def draw_confusion(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    """A confusion matrix: blue is right, orange wrong, and stronger what is more of its class.

    Args:
        axes: To draw on.
        matrix: Counts, true classes as rows.
        names: Of the classes; those that are missing get their number.
    """
    classes = len(matrix)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    colours = np.where(np.eye(classes, dtype=bool)[..., None], (0.2, 0.5, 0.9), (0.9, 0.4, 0.2))
    cells = np.concatenate([colours, 0.75 * share[..., None] ** 0.5], axis=2)
    axes.imshow(cells, interpolation="none")
    if classes <= _COUNTED:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                axes.text(column, row, f"{count:,.0f}", ha="center", va="center", fontsize=8)
    if classes <= _NAMED:
        labels = [_short(names[k]) if k < len(names) else str(k) for k in range(classes)]
        slanted = any(len(label) > 2 for label in labels)
        axes.set_xticks(range(classes), labels, rotation=90 if slanted else 0)
        axes.set_yticks(range(classes), labels)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def draw_pairs(axes: Axes, pairs: np.ndarray) -> None:
    """Predictions against true values, and the line on which they are right.

    Args:
        axes: To draw on.
        pairs: True values and predictions, of shape (rows, 2).
    """
    axes.scatter(pairs[:, 0], pairs[:, 1], s=9, alpha=0.5, linewidths=0)
    axes.axline((pairs.mean(), pairs.mean()), slope=1, linewidth=1, color="C1")
    axes.set_title("predicted against true")
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.3)


def draw_residuals(axes: Axes, pairs: np.ndarray) -> None:
    """How often predictions are off by how much.

    Args:
        axes: To draw on.
        pairs: As in `draw_pairs`.
    """
    axes.hist(pairs[:, 1] - pairs[:, 0], bins=min(40, 5 + len(pairs) // 10), alpha=0.8)
    axes.axvline(0, linewidth=1, color="C1")
    axes.set_title("residuals")
    axes.set_xlabel("predicted minus true")
    axes.set_ylabel("rows")
    axes.grid(axis="y", alpha=0.3)


def as_svg(
    draw: Callable[[Axes], None], label: str, *, width: float = 4.2, height: float = 3.2
) -> str:
    """A chart as an element for a page whose style sheet names the colours.

    Args:
        draw: Draws on axes.
        label: What the chart shows, for those who cannot see it.
        width: In inches.
        height: In inches.
    """
    matplotlib = load_extra("matplotlib", "report")
    from matplotlib.figure import Figure

    # Text stays text, and names from data are no formulas.
    looks = {
        "axes.edgecolor": _LINE, "axes.facecolor": "none", "axes.labelcolor": _SOFT,
        "axes.prop_cycle": matplotlib.cycler(color=_CURVES), "axes.spines.right": False,
        "axes.spines.top": False, "axes.titlelocation": "left", "axes.titlesize": 11,
        "grid.color": _SOFT, "legend.frameon": False, "legend.labelcolor": _SOFT,
        "svg.fonttype": "none", "svg.hashsalt": label, "text.color": _INK,
        "text.parse_math": False, "xtick.color": _SOFT, "ytick.color": _SOFT,
    }  # fmt: skip
    file = io.StringIO()
    with matplotlib.rc_context(looks), warnings.catch_warnings():
        # Of signs that matplotlib's own font lacks: whoever shows the page has others.
        warnings.filterwarnings("ignore", "Glyph")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, name in _THEME.items():
        text = text.replace(colour, f"var({name})")
    return text


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
