"""One week of one station: what was counted, and what the model said before."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_week"]

# Drawn large and made smaller, which smooths the lines.
_SCALE = 3
_WIDTH, _HEIGHT = 900, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 58, 34
_PAPER, _INK, _FAINT, _RULE = "#ffffff", "#22272e", "#6b7480", "#e4e7eb"
_COUNTED, _COUNTED_LINE, _PREDICTED = "#d5dbe3", "#8a95a3", "#d1495b"


def draw_week(rows: pd.DataFrame, file: str) -> str:
    """Draw `rides` and `predicted` over `time`, and save the picture.

    Args:
        rows: Of one station; its first seven days are drawn.
        file: The PNG to write.

    Returns:
        The file.
    """
    rows = rows.sort_values("time")
    rows = rows[rows["time"] < rows["time"].iloc[0].normalize() + pd.Timedelta(days=7)]
    canvas = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
    draw = ImageDraw.Draw(canvas)
    name = rows["station"].iloc[0]
    top = max(rows["rides"].max(), rows["predicted"].max())
    step = next(s for s in (10, 20, 25, 50, 100, 200, 500) if top / s <= 5)
    highest = step * -(-top // step)
    _axes(draw, rows, step, highest)
    counted, predicted = (_points(rows, column, highest) for column in ("rides", "predicted"))
    ground = (_HEIGHT - _BOTTOM) * _SCALE
    draw.polygon([(counted[0][0], ground), *counted, (counted[-1][0], ground)], fill=_COUNTED)
    draw.line(counted, fill=_COUNTED_LINE, width=4, joint="curve")
    draw.line(predicted, fill=_PREDICTED, width=6, joint="curve")
    _text(draw, (_LEFT, 10), f"{name}, bicycles every half hour", 17, _INK)
    _legend(draw)
    canvas.resize((_WIDTH * 2, _HEIGHT * 2), Image.Resampling.LANCZOS).save(file, optimize=True)
    return file


def _points(rows: pd.DataFrame, name: str, highest: float) -> list[tuple[float, float]]:
    first = rows["time"].iloc[0].normalize()
    days = (rows["time"] - first) / pd.Timedelta(days=1)
    return [(_x(day), _y(max(0.0, v), highest)) for day, v in zip(days, rows[name], strict=True)]


def _x(day: float) -> float:
    return (_LEFT + (_WIDTH - _LEFT - _RIGHT) * day / 7) * _SCALE


def _y(value: float, highest: float) -> float:
    return (_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / highest) * _SCALE


def _axes(draw: ImageDraw.ImageDraw, rows: pd.DataFrame, step: int, highest: float) -> None:
    for value in range(0, int(highest) + 1, step):
        y = _y(value, highest)
        draw.line([(_x(0), y), (_x(7), y)], fill=_RULE, width=_SCALE)
        _text(draw, (_LEFT - 8, y / _SCALE), str(value), 12, _FAINT, "rm")
    first = rows["time"].iloc[0].normalize()
    for day in range(7):
        name = (first + pd.Timedelta(days=day)).strftime("%a %-d %b")
        x, ground = _x(day), (_HEIGHT - _BOTTOM) * _SCALE
        draw.line([(x, ground), (x, ground + 6 * _SCALE)], fill=_FAINT, width=_SCALE)
        _text(draw, (_x(day + 0.5) / _SCALE, _HEIGHT - _BOTTOM + 16), name, 12, _FAINT, "mm")


def _legend(draw: ImageDraw.ImageDraw) -> None:
    x, y = _LEFT * _SCALE, 43 * _SCALE
    draw.rectangle([x, y - 5 * _SCALE, x + 18 * _SCALE, y + 5 * _SCALE], fill=_COUNTED)
    _text(draw, (_LEFT + 25, 43), "counted", 13, _FAINT, "lm")
    x = (_LEFT + 100) * _SCALE
    draw.line([(x, y), (x + 18 * _SCALE, y)], fill=_PREDICTED, width=6)
    _text(draw, (_LEFT + 125, 43), "predicted", 13, _FAINT, "lm")


def _text(
    draw: ImageDraw.ImageDraw,
    at: Sequence[float],
    text: str,
    size: int,
    colour: str,
    anchor: str = "la",
) -> None:
    place = (at[0] * _SCALE, at[1] * _SCALE)
    font = ImageFont.load_default(size * _SCALE)
    draw.text(place, text, fill=colour, font=font, anchor=anchor)
