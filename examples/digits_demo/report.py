"""One HTML file that shows what was trained, how well it reads and where the time went."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from digits_demo.charts import Span, bars, heat_map, lines
from zoo.orca.learn.report import FitReport

__all__ = ["write_report"]

_MOST_PICTURES = 24
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1>{title}</h1><p>{lead}</p>{body}</main></body></html>
"""


def write_report(
    folder: str,
    stages: Mapping[str, float],
    fit: FitReport,
    epochs: Sequence[Mapping[str, Any]],
    accuracy: float,
    counts: pd.DataFrame,
    confusion: pd.DataFrame,
    doubtful: pd.DataFrame,
) -> None:
    """Write the report, and say where it is.

    Args:
        folder: Where to write `report.html`.
        stages: Seconds of each stage of the program.
        fit: Where the time of the training went.
        epochs: What `fit` returned.
        accuracy: On the images held out.
        counts: Images of each `class`: `train` and `held_out`.
        confusion: `images` that are `label` and were `read` as.
        doubtful: Images with `label`, `read` and `scores`, wrong ones first.
    """
    names = [str(name) for name in counts["class"]]
    held_out, trained = int(counts.held_out.sum()), int(counts.train.sum())
    wrong = int(confusion.images[confusion.label != confusion.read].sum())
    total = sum(stages.values())
    figures = {
        "of the images held out are read rightly": f"{accuracy:.1%}",
        f"of {held_out:,} images held out are read wrongly": f"{wrong:,}",
        f"images a second, in training on {len(fit.ranks)} ranks": f"{fit.steady_rows_per_s:,.0f}",
        "from the start of the program to this report": f"{total:.0f} s",
    }
    body = [
        _figures(figures),
        f'<div class="pair">{_loss(epochs)}{_confusion(names, confusion)}</div>',
        _pictures(names, doubtful),
        _time(stages, fit),
        f"<footer>Held-out accuracy {accuracy:.4f}. Which images are held out follows from their "
        "file names; they were never trained on, and nothing was chosen by them.</footer>",
    ]
    page = _PAGE.format(
        title=f"{trained + held_out:,} images of {len(names)} classes",
        lead=f"A small convolutional network, trained by {len(fit.ranks)} ranks inside Spark on "
        f"{trained:,} of the images and tried on the other {held_out:,}.",
        style=Path(__file__).with_name("report.css").read_text(),
        body="".join(body),
    )
    path = Path(folder, "report.html")
    path.write_text(page, encoding="utf-8")
    print(f"\nHeld-out accuracy  {accuracy:.4f}  ({wrong} of {held_out:,} images read wrongly)")
    print(f"Report             {path}\nTime               {total:.0f} s in all")


def _figures(figures: Mapping[str, str]) -> str:
    cells = (
        f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in figures.items()
    )
    return f'<div class="figures">{"".join(cells)}</div>'


def _section(title: str, said: str, *content: str) -> str:
    return f"<section><h2>{title}</h2><p>{said}</p>{''.join(content)}</section>"


def _loss(epochs: Sequence[Mapping[str, Any]]) -> str:
    curves = {
        "training": [e["train_loss"] for e in epochs],
        "held out": [e["val_loss"] for e in epochs],
    }
    return _section(
        "Loss",
        "Mean cross entropy of each epoch, on a logarithmic scale. Training runs with dropout, the "
        "images held out are read without it.",
        lines(curves, ["blue", "orange"]),
    )


def _confusion(names: Sequence[str], confusion: pd.DataFrame) -> str:
    counts = {(int(r.label), int(r.read)): int(r.images) for r in confusion.itertuples()}
    return _section(
        "What is taken for what",
        "Rows are what the image shows, columns what the model reads. Blue is right, orange is "
        "wrong.",
        heat_map(names, counts),
    )


def _pictures(names: Sequence[str], doubtful: pd.DataFrame) -> str:
    wrong = doubtful[doubtful.label != doubtful.read].head(_MOST_PICTURES)
    unsure = doubtful[doubtful.label == doubtful.read].head(_MOST_PICTURES // 2)
    parts = ["<h3>Read wrongly</h3>", _gallery(names, wrong)] if len(wrong) else []
    parts += ["<h3>Right, but close</h3>", _gallery(names, unsure)] if len(unsure) else []
    said = (
        "Below each what it shows and what the model reads, or nearly reads, with the probability "
        "that the model gives to its answer."
    )
    return _section("The hard ones", said, *parts)


def _gallery(names: Sequence[str], images: pd.DataFrame) -> str:
    return f'<div class="pictures">{"".join(_picture(names, r) for r in images.itertuples())}</div>'


def _picture(names: Sequence[str], row: Any) -> str:
    image = Image.open(io.BytesIO(row.image)).convert("RGB")
    tiny = ' class="tiny"' * (max(image.size) <= 32)
    image.thumbnail((168, 168))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    shows, read = escape(names[row.label]), escape(names[row.read])
    sure = 1 / sum(math.exp(score - max(row.scores)) for score in row.scores)
    second = escape(names[sorted(range(len(names)), key=lambda n: row.scores[n])[-2]])
    said = f'read <b class="wrong">{read}</b>' if row.label != row.read else f"not {second}"
    return (
        f'<figure><img{tiny} src="data:image/png;base64,{data}" alt="{shows}">'
        f"<figcaption><b>{shows}</b>, {said}<br>{sure:.0%}</figcaption></figure>"
    )


def _time(stages: Mapping[str, float], fit: FitReport) -> str:
    rows: list[tuple[str, list[Span], str]] = []
    begun = 0.0
    for name, seconds in stages.items():
        rows.append((name, [("blue", begun, seconds)], f"{seconds:.1f} s"))
        if name == "Train":
            at = begun
            inside = {"ingest": fit.ingest_s, "start": fit.start_s, "epochs": fit.train_s}
            for part, length in inside.items():
                rows.append((f"· {part}", [("violet", at, length)], f"{length:.1f} s"))
                at += length
        begun += seconds
    ranks = [
        (
            f"Rank {r.rank}",
            [
                ("gold", 0.0, r.data_s),
                ("blue", r.data_s, r.compute_s),
                ("orange", r.data_s + r.compute_s, r.sync_s),
            ],
            f"{r.rows:,} images",
        )
        for r in fit.ranks
    ]
    kinds = {"gold": "waiting for data", "blue": "computing", "orange": "agreeing with the others"}
    legend = "".join(
        f'<span><i style="background:var(--{c})"></i>{t}</span>' for c, t in kinds.items()
    )
    return _section(
        "Where the time went",
        "The whole program from left to right, and inside the training: writing the images as "
        f"arrays ({fit.bytes_ingested / 1e6:,.1f} MB), starting the ranks, {fit.epochs} epochs.",
        bars(rows),
        f"<h3>What the ranks did in these epochs</h3>{bars(ranks)}",
        f'<div class="legend">{legend}</div>',
    )
