"""Charts as SVG text. Colours are names of the style sheet, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "heat_map", "lines"]

Span = tuple[str, float, float]
"""A colour, and where a bar begins and how long it is."""


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def lines(series: Mapping[str, Sequence[float]], colours: Sequence[str]) -> str:
    """Curves over the epochs 1, 2, ..., on a logarithmic scale, each named at its end."""
    width, height, left, right, bottom = 440.0, 390.0, 42.0, 74.0, 32.0
    values = [max(v, 1e-6) for curve in series.values() for v in curve if math.isfinite(v)]
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 0.3)
    epochs = max(len(curve) for curve in series.values())

    def x(epoch: int) -> float:
        return left + (width - left - right) * (epoch - 1) / max(1, epochs - 1)

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (high - math.log10(max(value, 1e-6))) / span

    parts = []
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for tick in (10.0**exponent, 3 * 10.0**exponent):
            if low - 0.02 <= math.log10(tick) <= high + 0.02:
                parts.append(_rule(left, width - right, y(tick)))
                parts.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "end", "number"))
    shown = sorted({1, *range(5, epochs + 1, 5), epochs})
    parts += [_text(x(n), height - 12, str(n), "middle", "number") for n in shown]
    parts.append(_text(width - right + 12, height - 12, "epoch"))
    ends = _apart([y(curve[-1]) for curve in series.values()])
    for (name, curve), colour, end in zip(series.items(), colours, ends, strict=True):
        path = " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in enumerate(curve, 1))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="2.25" '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )
        parts += [_dot(x(n), y(v), colour, f"{name}, epoch {n}: {v:.4f}") for n, v in
                  enumerate(curve, 1)]  # fmt: skip
        parts.append(_text(x(len(curve)) + 12, end + 4, name, kind="strong"))
    return _svg(width, height, parts)


def _rule(start: float, stop: float, y: float) -> str:
    return f'<path d="M{start:.1f} {y:.1f}H{stop:.1f}" stroke="var(--line)" fill="none"/>'


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--{colour})" stroke="var(--card)">'
        f"<title>{escape(title)}</title></circle>"
    )


def _apart(places: Sequence[float], least: float = 16.0) -> list[float]:
    """Places of labels, moved so that none covers another."""
    moved = list(places)
    order = sorted(range(len(places)), key=places.__getitem__)
    for before, after in zip(order, order[1:], strict=False):
        moved[after] = max(moved[after], moved[before] + least)
    return moved


def heat_map(names: Sequence[str], counts: Mapping[tuple[int, int], int]) -> str:
    """A matrix of counts, rows true and columns read; what is off the diagonal stands out."""
    size = min(34.0, 680.0 / max(1, len(names)))
    longest = max(len(name) for name in names)
    left = min(150.0, 22 + 7.5 * longest)
    top, side = left if longest > 3 else 24.0, size * len(names)
    wrong = max([n for (true, read), n in counts.items() if true != read], default=1)
    right = max([n for (true, read), n in counts.items() if true == read], default=1)
    parts = []
    for at, name in enumerate(names):
        middle = (at + 0.5) * size
        parts.append(_text(left - 8, top + middle + 4, name, "end", "strong"))
        turn = f' transform="rotate(-90 {left + middle + 4:.1f} {top - 8:.1f})"' * (longest > 3)
        parts.append(
            f'<text x="{left + middle + 4 * (longest > 3):.1f}" y="{top - 8:.1f}" class="strong" '
            f'text-anchor="{"start" if longest > 3 else "middle"}"{turn}>{escape(name)}</text>'
        )
    for true in range(len(names)):
        for read in range(len(names)):
            n = counts.get((true, read), 0)
            share = n / (right if true == read else wrong)
            colour = "blue" if true == read else "orange"
            title = f"{names[true]} read as {names[read]}: {n}"
            parts.append(
                _cell(left + read * size, top + true * size, size, n, share, colour, title)
            )
    return _svg(left + side + 4, top + side + 4, parts)


def _cell(x: float, y: float, size: float, n: int, share: float, colour: str, title: str) -> str:
    fill = f"var(--{colour})" if n else "var(--line)"
    strength = 0.25 + 0.45 * share if n else 0.35
    number = _text(x + size / 2, y + size / 2 + 4, str(n), "middle", "strong number")
    return (
        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2:.1f}" height="{size - 2:.1f}" '
        f'rx="{min(4.0, size / 6):.1f}" fill="{fill}" fill-opacity="{strength:.2f}">'
        f"<title>{escape(title)}</title></rect>{number if n and size > 18 else ''}"
    )


def bars(rows: Sequence[tuple[str, Sequence[Span], str]], *, indent: float = 130.0) -> str:
    """Horizontal bars: a name, spans of one scale, and what stands behind the last."""
    width, step, after = 860.0, 34.0, 150.0
    longest = max(start + length for _, spans, _ in rows for _, start, length in spans) or 1.0
    scale = (width - indent - after) / longest
    parts = []
    for at, (name, spans, said) in enumerate(rows):
        y = at * step
        parts.append(_text(indent - 14, y + 18, name, "end", "strong"))
        for colour, start, length in spans:
            parts.append(
                f'<rect x="{indent + start * scale:.1f}" y="{y + 4:.1f}" rx="3" height="20" '
                f'width="{max(1.5, length * scale - 1.5):.1f}" fill="var(--{colour})">'
                f"<title>{escape(name)}: {length:.2f} s</title></rect>"
            )
        end = max(start + length for _, start, length in spans)
        parts.append(_text(indent + end * scale + 10, y + 18, said, kind="number"))
    return _svg(width, len(rows) * step, parts)
