"""One HTML file that shows a fit: its curves, what it can do, where the time went, what it was."""

from __future__ import annotations

import base64
import contextlib
import io
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import InputError, load_extra
from zoo.orca.learn.charts import (
    as_svg,
    draw_confusion,
    draw_curves,
    draw_pairs,
    draw_residuals,
    panels,
)
from zoo.orca.learn.explain import explain
from zoo.orca.learn.history import History
from zoo.orca.learn.report import FitReport, RankTimes

if TYPE_CHECKING:
    from zoo.orca.data.tensors.plan import TensorPlan

__all__ = ["FitFacts", "render_page"]

_TEMPLATE = "report_page.html.jinja2"
_TILES, _MISTAKES, _ROWS = 4, 8, 100
# By the last part of its name, a result is drawn so.
_CONFUSION, _PAIRS = "ConfusionMatrix", "PredictionPairs"


@dataclass
class FitFacts:
    """What a page shows of an estimator.

    Attributes:
        history: The epochs of the last fit.
        report: Where its time went; None before.
        plan: The layout of its data; None for loaders.
        settings: Plain values by name.
        evaluation: What `evaluate` gave after it, or an empty dict.
    """

    history: History = field(default_factory=History)
    report: FitReport | None = None
    plan: TensorPlan | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def render_page(
    facts: FitFacts,
    *,
    title: str,
    classes: Sequence[str] = (),
    sections: Mapping[str, Any] | None = None,
) -> str:
    """The page as text.

    Args:
        facts: What to show.
        title: Its heading.
        classes: Names of the classes, in order.
        sections: More of the user's own by heading: texts, pandas DataFrames, figures of
            matplotlib.

    Raises:
        InputError: There is nothing to show, or a section is of another kind.
        MissingExtraError: The extra `report` is not installed.
    """
    if facts.report is None and not facts.evaluation:
        raise InputError("a fit to report on", "none so far", "Call fit or evaluate first.")
    jinja2 = load_extra("jinja2", "report")
    load_extra("matplotlib", "report")
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    said, measured = _measured(facts)
    report = facts.report
    page: str = environment.from_string(source).render(
        title=title,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        lead="" if report is None else str(report).partition("\n")[0],
        tiles=_tiles(facts, measured),
        curves=_curves(facts.history),
        epochs=_epochs(facts.history),
        measured_by=said,
        numbers=[(name, _number(v)) for name, v in measured.items() if _is_number(v)],
        confusions=[_Confusion.of(*one, classes) for one in _matrices(measured)],
        pairs=_pairs(measured),
        sections=[_section(*one) for one in (sections or {}).items()],
        report=report,
        phases=[] if report is None else _phases(report),
        ranks=[] if report is None else [_rank_parts(rank, report) for rank in report.ranks],
        advice=[] if report is None else explain(report).splitlines()[1:],
        data=[] if report is None else _data(report),
        tensors=[] if facts.plan is None else _tensors(facts.plan),
        settings=facts.settings,
        versions=_versions(),
    )
    return page


def _measured(facts: FitFacts) -> tuple[str, dict[str, Any]]:
    """The newest results by name, and how they came about."""
    found = dict(facts.evaluation)
    if found:
        return f"Of an evaluation of {found.pop('num_samples', 0):,} rows.", found
    last = facts.history[-1] if facts.history else {}
    found = {name.removeprefix("val_"): v for name, v in last.items() if name.startswith("val_")}
    return f"Of the validation data after epoch {last.get('epoch')}.", found


def _tiles(facts: FitFacts, measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers at the top: the scores, then what there is of the training."""
    tiles = [(name, _number(v)) for name, v in measured.items() if _is_number(v)]
    tiles.sort(key=lambda tile: "loss" in tile[0])
    tiles = tiles[: _TILES - 2]
    if facts.history:
        tiles.append(("training loss", _number(facts.history[-1]["train_loss"])))
    if facts.report is not None:
        tiles.append(("rows a second while training", f"{facts.report.steady_rows_per_s:,.0f}"))
    return tiles


def _curves(history: History) -> list[str]:
    table = history.frame()
    return [
        as_svg(partial(draw_curves, title=title, curves=table[names]), f"{title} of each epoch")
        for title, names in panels(table).items()
    ]


def _epochs(history: History) -> tuple[list[str], list[list[str]]]:
    """Every number of every epoch, as a table."""
    names = {name: None for epoch in history for name, v in epoch.items() if _is_number(v)}
    rows = [[_number(epoch[n]) if n in epoch else "" for n in names] for epoch in history]
    return list(names), rows


@dataclass(frozen=True)
class _Confusion:
    """A confusion matrix for the page.

    Attributes:
        name: Of the result.
        chart: As an element.
        classes: For each class its name, rows, and the shares of it that were found and of what
            was taken for it that is right.
        mistakes: The most frequent ones: true class, predicted class, rows.
    """

    name: str
    chart: str
    classes: list[tuple[str, str, str, str]]
    mistakes: list[tuple[str, str, str]]

    @classmethod
    def of(cls, name: str, matrix: np.ndarray, given: Sequence[str]) -> _Confusion:
        names = [str(given[k]) if k < len(given) else str(k) for k in range(len(matrix))]
        side = min(7.0, 3.6 + 0.12 * len(matrix))
        draw = partial(draw_confusion, matrix=matrix, names=names)
        wrong = matrix * (1 - np.eye(len(matrix)))
        worst = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
        at = [divmod(int(k), len(matrix)) for k in worst]
        sums = (matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0))
        right, true, taken = (part.tolist() for part in sums)
        return cls(
            name,
            as_svg(draw, name, width=side, height=side),
            [
                (names[k], f"{true[k]:,.0f}", _share(right[k], true[k]), _share(right[k], taken[k]))
                for k in range(len(matrix))
            ],
            [(names[i], names[j], f"{wrong[i, j]:,.0f}") for i, j in at if wrong[i, j]],
        )


def _matrices(measured: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """The results that are confusion matrices."""
    found = [(n, np.asarray(v, float)) for n, v in measured.items() if n.endswith(_CONFUSION)]
    return [(n, m) for n, m in found if m.ndim == 2 and m.shape[0] == m.shape[1] and m.size]


def _pairs(measured: Mapping[str, Any]) -> list[tuple[str, int, list[str]]]:
    """The results that are pairs: their names, how many cannot be drawn, and charts."""
    shown = []
    for name, value in measured.items():
        pairs = np.asarray(value, float) if name.endswith(_PAIRS) else np.zeros((0, 2))
        finite = pairs[np.isfinite(pairs).all(axis=-1)] if pairs.ndim == 2 else pairs[:0]
        if len(finite):
            charts = [
                as_svg(partial(draw, pairs=finite), f"{name}: {label}", width=4.6, height=3.8)
                for draw, label in ((draw_pairs, "predicted"), (draw_residuals, "residuals"))
            ]
            shown.append((name, len(pairs) - len(finite), charts))
    return shown


def _section(heading: str, content: Any) -> dict[str, Any]:
    """A section of the user's own."""
    import pandas as pd
    from matplotlib.figure import Figure

    made: dict[str, Any] = {"heading": heading, "text": "", "table": None, "picture": ""}
    if isinstance(content, str):
        made["text"] = content
    elif isinstance(content, pd.DataFrame):
        rows = content.head(_ROWS).itertuples(index=False)
        made["table"] = [str(name) for name in content], [[_cell(v) for v in row] for row in rows]
    elif isinstance(content, Figure):
        file = io.BytesIO()
        content.savefig(file, format="png", dpi=144, bbox_inches="tight")
        made["picture"] = base64.b64encode(file.getvalue()).decode()
    else:
        raise InputError(
            "sections that are texts, pandas DataFrames or figures of matplotlib",
            f"{type(content).__name__} for {heading!r}",
            "Take a sample to the driver, or draw it.",
        )
    return made


def _phases(report: FitReport) -> list[tuple[str, float, str]]:
    """Parts of the call: name, part of the whole, seconds."""
    parts = {
        "preparing data": report.ingest_s,
        "starting workers": report.start_s,
        "training": report.train_s,
        "validating": report.validate_s,
    }
    whole = sum(parts.values()) or 1.0
    return [(name, s / whole, f"{s:.2f} s") for name, s in parts.items() if s]


def _rank_parts(rank: RankTimes, report: FitReport) -> dict[str, Any]:
    """A rank, and the parts of the longest rank's time that it spent on what."""
    whole = max(r.seconds for r in report.ranks) or 1.0
    parts = (rank.data_s, rank.compute_s, rank.sync_s, rank.observe_s)
    return {"facts": rank, "parts": [s / whole for s in parts]}


def _data(report: FitReport) -> list[tuple[str, str]]:
    """What was trained on."""
    found = [("rows", f"{report.rows:,}")]
    if report.validation_rows:
        found.append(("rows of validation", f"{report.validation_rows:,}"))
    if report.shards:
        found += [("shards", f"{report.shards:,}"), ("MB", f"{report.bytes_ingested / 1e6:,.1f}")]
    return found


def _tensors(plan: TensorPlan) -> list[tuple[str, str, str]]:
    """What the model gets: its use, the columns, type and shape of one row."""
    kinds = [("feature", t) for t in plan.features] + [("label", t) for t in plan.labels]
    return [
        (
            use,
            ", ".join(column.name for column in tensor.columns),
            ("text" if tensor.is_text else tensor.dtype or "as decoded")
            + (f" {list(tensor.shape)}" if tensor.shape else ""),
        )
        for use, tensor in kinds
    ]


def _versions() -> dict[str, str]:
    """Of this package, of Python, and of those of its packages that this process uses."""
    found = {"Python": platform.python_version(), "system": platform.platform()}
    try:
        found["zoo"] = metadata.version("zoo")
        needs = metadata.requires("zoo") or []
    except metadata.PackageNotFoundError:  # run from its source
        needs = ["numpy", "pandas", "pyarrow", "pyspark"]
    for name in sorted({re.split(r"[^\w.-]", need)[0] for need in needs}):
        # A module may come from a package of another name, such as tensorflow-cpu.
        with contextlib.suppress(metadata.PackageNotFoundError):
            if name.replace("-", "_") in sys.modules:
                found[name] = metadata.version(name)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _cell(value: object) -> str:
    return _number(float(value)) if isinstance(value, float | np.floating) else str(value)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""
