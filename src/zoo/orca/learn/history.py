"""What a fit gives back: the numbers of its epochs, as a list, a table or a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from zoo.errors import load_extra
from zoo.orca.learn.charts import draw_curves, panels
from zoo.orca.learn.steps import EpochStats, validation_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["History", "epoch_dict"]


class History(list[dict[str, Any]]):
    """One dict for each epoch, and views of all of them.

    To keep it in a file of torch, which reads plain lists only, write `list(history)`.

    Example:
        >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        >>> history[-1]["train_loss"]
        0.25
        >>> history["train_loss"]  # of the last epoch
        0.25
        >>> float(history.frame().loc[2, "train_loss"])
        0.25
    """

    @overload
    def __getitem__(self, key: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> Any:
        """An epoch by its place, or a number of the last epoch by its name.

        Args:
            key: As of a list; or a name, which older programs have with `train_` in front.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        last = super().__getitem__(-1) if self else {}
        return last[key if key in last else key.removeprefix("train_")]

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
        matplotlib = load_extra("matplotlib", "plot")
        from matplotlib.figure import Figure

        table = self.frame()
        found = panels(table)
        # Names of metrics are no formulas.
        with matplotlib.rc_context({"text.parse_math": False}):
            figure = Figure(figsize=(4.2 * max(1, len(found)), 3.2), layout="constrained")
            for number, (title, names) in enumerate(found.items()):
                draw_curves(figure.add_subplot(1, len(found), number + 1), title, table[names])
            if path is not None:
                figure.savefig(path, dpi=120)
        return figure

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        html: str = self.frame().to_html(float_format=lambda number: f"{number:.6g}", na_rep="")
        return html


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def epoch_dict(epoch: EpochStats, profile: bool, *, own: bool = False) -> dict[str, Any]:
    """The numbers of an epoch as a history has them.

    Args:
        epoch: Of all ranks.
        profile: Whether to add seconds of a step, by what they went into.
        own: Rows and loss of this rank alone.
    """
    result: dict[str, Any] = {
        "epoch": epoch.epoch,
        "batch_count": epoch.steps,
        "num_samples": epoch.own_rows if own else epoch.rows,
        "train_loss": epoch.own_loss if own else epoch.loss,
        "last_train_loss": epoch.last_loss,
        **epoch.extra,
    }
    for name, value in epoch.validation.items():
        result[validation_name(name)] = value
    if profile:
        steps = max(1, epoch.steps)
        times = asdict(epoch)
        result["profile"] = {"mean_train_epoch_s": epoch.seconds} | {
            f"mean_{part}_s": times[f"{part}_s"] / steps for part in ("data", "compute", "sync")
        }
    return result
