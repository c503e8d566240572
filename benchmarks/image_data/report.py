"""Figures as tables, and what the project promises set against them."""

from __future__ import annotations

from collections.abc import Sequence

from tabular.report import Claim, aligned

from image_data.job import Figure

_SMALL = "32 px"


def write_table(figures: Sequence[Figure]) -> str:
    """A line for each writer and state, and how many times as fast ours is in that state."""
    found = [f for f in figures if f.part == "write"]
    lines: list[tuple[str, ...]] = [("writing", "", "", "files/s", "seconds", "MiB", "ours : it")]
    for figure in found:
        ours = _one(found, "ours", figure.case, figure.how)
        ratio = f"{ours.rate / figure.rate:.2f}" if ours and figure.rate else "-"
        rate, mib = f"{figure.rate:,.0f}" if figure.rate else "-", _shown(figure.mib, 1)
        seconds = f"{figure.seconds:.2f}"
        lines.append((figure.name, figure.case, figure.how, rate, seconds, mib, ratio))
    return aligned(lines) if found else ""


def read_table(figures: Sequence[Figure]) -> str:
    """A line for each loader and setting, and its part of the limit on as many processes."""
    found = [f for f in figures if f.part == "read"]
    heads = ("reading", "", "", "images/s", "steady", "to limit", "steady to limit")
    lines: list[tuple[str, ...]] = [heads]
    for figure in found:
        limit = _limit(found, figure)
        rates = figure.rate, figure.steady or 0.0
        parts = [f"{rate / limit:.2f}" if limit else "-" for rate in rates]
        shown = [f"{rate:,.0f}" for rate in rates]
        lines.append((figure.name, figure.case, figure.how, *shown, *parts))
    return aligned(lines) if found else ""


def access_table(figures: Sequence[Figure]) -> str:
    """A line for each way of looking records up."""
    found = [f for f in figures if f.part == "access"]
    heads = (
        "random access", "", "", "records/s", "seconds", "median ms", "99 % ms", "MiB", "ours : it",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = [heads]
    for figure in found:
        ours = _one(found, "ours", figure.case, figure.how)
        ratio = f"{ours.rate / figure.rate:.2f}" if ours else "-"
        latency = [f"{ms:.3f}" for ms in figure.latency_ms] if figure.latency_ms else ["-", "-"]
        seconds, mib = f"{figure.seconds:.3f}", _shown(figure.mib, 0)
        rate = f"{figure.rate:,.0f}"
        lines.append((figure.name, figure.case, figure.how, rate, seconds, *latency, mib, ratio))
    return aligned(lines) if found else ""


def claims(figures: Sequence[Figure]) -> list[Claim]:
    """The promises for which this run has figures."""
    return [*_write_claims(figures), *_read_claims(figures), *_access_claims(figures)]


def _write_claims(figures: Sequence[Figure]) -> list[Claim]:
    found = [f for f in figures if f.part == "write" and f.case == _SMALL]
    ours = _one(found, "ours", _SMALL, "warm")
    peers = [f for f in found if f.name in ("mosaicml", "Lance") and f.how == "warm"]
    return [
        Claim(f"writing {_SMALL}: times the files/s of {peer.name}", ours.rate / peer.rate, 1.0)
        for peer in peers
        if ours
    ]


def _read_claims(figures: Sequence[Figure]) -> list[Claim]:
    found = [f for f in figures if f.part == "read"]
    ours = [
        figure
        for figure in found
        if figure.name == "ours"
        and figure.how.startswith("2 workers")
        and figure.how.endswith("warm")
        and _limit(found, figure)
    ]
    return [
        Claim(
            f"reading {figure.case}, {figure.how}, {kind}: part of bare decoding",
            (rate or 0.0) / _limit(found, figure),
            0.9,
        )
        for figure in ours
        for kind, rate in (("in all", figure.rate), ("steady", figure.steady))
    ]


def _access_claims(figures: Sequence[Figure]) -> list[Claim]:
    found = [f for f in figures if f.part == "access"]
    scans = [f for f in found if f.name.startswith("Parquet scan")]
    return [
        Claim(f"random access, {scan.how}: times a {scan.name}", ours.rate / scan.rate, 5.0)
        for scan in scans
        if (ours := _one(found, "ours", scan.case, scan.how))
    ]


def _one(figures: Sequence[Figure], name: str, case: str, how: str) -> Figure | None:
    same = (f for f in figures if (f.name, f.case, f.how) == (name, case, how))
    return next(same, None)


def _limit(figures: Sequence[Figure], figure: Figure) -> float:
    same = (figure.case, figure.processes)
    rates = (f.rate for f in figures if f.name == "limit" and (f.case, f.processes) == same)
    return next(rates, 0.0)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
