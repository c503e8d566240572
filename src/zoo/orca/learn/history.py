"""What a fit gives back: the numbers of its epochs, as a list, a table or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import load_extra

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["History"]

# Neither is a measure of how good the model is.
_NO_SCORES = ("epoch", "batch_count", "num_samples", "last_train_loss", "restored")


class History(list[dict[str, Any]]):
    """One dict for each epoch, and views of all of them.

    To keep it in a file of torch, which reads plain lists only, write `list(history)`.

    Example:
        >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        >>> history[-1]["train_loss"]
        0.25
        >>> float(history.frame().loc[2, "train_loss"])
        0.25
    """

    def frame(self) -> pd.DataFrame:
        """The numbers as a table: a row for each epoch, whose number is the index."""
        import pandas as pd

        rows = [{k: v for k, v in epoch.items() if _is_number(v)} for epoch in self]
        table = pd.DataFrame(rows)
        return table.set_index("epoch") if "epoch" in table else table

    def plot(self, path: str | Path | None = None) -> Figure:
        """Curves over the epochs: the losses, each metric, and the learning rate where it changes.

        Args:
            path: A file to write besides; its ending is the format, such as `.png`.

        Returns:
            The figure, which notebooks show.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        load_extra("matplotlib", "plot")
        from matplotlib.figure import Figure

        table = self.frame()
        panels = _panels(table)
        figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.2), layout="constrained")
        for number, (title, names) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), number + 1)
            _draw(axes, title, table[names])
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        html: str = self.frame().to_html(float_format=lambda number: f"{number:.6g}", na_rep="")
        return html


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _panels(table: pd.DataFrame) -> dict[str, list[str]]:
    """What is drawn together: a loss with that of validation, and each other number alone."""
    names = [str(name) for name in table if name not in _NO_SCORES]
    losses: list[str] = [name for name in ("train_loss", "val_loss") if name in names]
    panels = {"loss": losses}
    for name in names:
        if name in panels["loss"] or (name == "lr" and len(set(table["lr"])) < 2):
            continue
        panels.setdefault(name.removeprefix("val_"), []).append(name)
    panels = {title: found for title, found in panels.items() if found}
    return panels | ({"lr": panels.pop("lr")} if "lr" in panels else {})


def _draw(axes: Axes, title: str, curves: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, values in curves.items():
        axes.plot(curves.index, values, marker="o", markersize=3, label=str(name))
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(curves.columns) > 1:
        axes.legend()
