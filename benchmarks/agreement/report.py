"""Measured sums and steps, what follows from them, and tables of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tabular.report import Claim

from agreement.model import (
    LINKS,
    Fit,
    Link,
    Point,
    efficiency,
    errors,
    fit,
    memory_terms,
    ring_bytes,
    ring_terms,
    touched_bytes,
    two_levels,
)
from agreement.ranks import MEMORY, NETWORK, TWO_HOSTS, Step, Sum

__all__ = ["HELD_OUT", "Findings", "findings"]

KIB, MIB = 1024, 1024**2
HELD_OUT = (16 * KIB, 256 * KIB, 4 * MIB)
"""Sizes that no fit sees."""
_BOUND_FROM, _BOUND = MIB, 1.1
_WORLDS = (16, 32, 64, 128, 256, 512, 1024)
_GRADIENTS = (100e6, 1e6)
_STEP_S = 0.5
_PER_HOST = 8
_ORDER = [MEMORY, TWO_HOSTS, NETWORK]

Line = Sequence[str]
Model = Callable[[int, int], float]


@dataclass(frozen=True)
class Findings:
    """All figures of a run.

    Attributes:
        cores: Of the machine, which all ranks share.
        sums: Over more than one rank.
        steps: Of training.
        ring: The fit for ranks that have a host each.
        memory: The fit for ranks of one host.
    """

    cores: int
    sums: tuple[Sum, ...]
    steps: tuple[Step, ...]
    ring: Fit
    memory: Fit

    @property
    def models(self) -> dict[str, Model]:
        """What the fits say for each way."""
        both = two_levels(self.memory, self.ring, 2, self.cores)
        return {MEMORY: self.memory.seconds, TWO_HOSTS: both, NETWORK: self.ring.seconds}

    @property
    def links(self) -> tuple[Link, ...]:
        """Networks to predict for: as assumed, and with the bytes as dear as they were here."""
        fast = LINKS[-1]
        beta = max(fast.beta, self.ring.constants[1])
        return (*LINKS, Link(f"{fast.name}, bytes at our cost", fast.alpha, beta))

    def errors(self, way: str) -> tuple[float, float] | None:
        """Median and largest relative error on the sizes that were held out."""
        held = [p for p in _points(self.sums, way) if p.size in HELD_OUT]
        return errors(self.models[way], held)

    def claims(self) -> list[Claim]:
        """What is promised, and what was counted."""
        ratios = [_ratio(s) for s in self.sums if s.hosts > 1 and s.size >= _BOUND_FROM]
        text = "bytes that a rank sends, of 1 MiB and more: times 2(N-1)/N S"
        return [Claim(text, max(ratios), _BOUND, at_most=True)] if ratios else []

    def tables(self) -> dict[str, str]:
        """Every table, by name."""
        made = {
            "sums": self._sums(),
            "ratios": self._ratios(),
            "sent": self._sent(),
            "touched": _touched(),
            "fits": self._fits(),
            "held_out": self._held_out(),
            "steps": self._steps(),
            "slow_gradients": self._predictions(_GRADIENTS[0]),
            "quick_gradients": self._predictions(_GRADIENTS[1]),
            "claims": self._claims(),
        }
        return {name: table(lines) for name, lines in made.items()}

    def _sums(self) -> list[Line]:
        sizes = sorted({s.size for s in self.sums})
        lines: list[Line] = [("ranks are on", "ranks", *map(shown_size, sizes))]
        for way, ranks in _kinds(self.sums):
            times = [milliseconds(s.seconds) for s in _of(self.sums, way, ranks)]
            lines.append((way, str(ranks), *times))
        return lines

    def _ratios(self) -> list[Line]:
        sizes = sorted({s.size for s in self.sums})
        lines: list[Line] = [("a host each, times one host", *map(shown_size, sizes))]
        for ranks in sorted({s.ranks for s in self.sums}):
            pairs = zip(_of(self.sums, NETWORK, ranks), _of(self.sums, MEMORY, ranks), strict=True)
            lines.append((f"{ranks} ranks", *(f"{n.seconds / m.seconds:.1f}" for n, m in pairs)))
        return lines

    def _sent(self) -> list[Line]:
        sizes = sorted({s.size for s in self.sums})
        lines: list[Line] = [("ranks are on", "ranks", *map(shown_size, sizes))]
        for way, ranks in _kinds([s for s in self.sums if s.hosts > 1]):
            ratios = [f"{_ratio(s):.3f}" for s in _of(self.sums, way, ranks)]
            lines.append((way, str(ranks), *ratios))
        return lines

    def _fits(self) -> list[Line]:
        alpha, beta = self.ring.constants
        wait, nap, touch = self.memory.constants
        constants = {
            NETWORK: f"alpha {_us(alpha)}, beta {_ns(beta)}",
            MEMORY: f"{_us(wait)} a wait, crowded {_us(nap)} x ranks / cores; {_ns(touch)} touched",
            TWO_HOSTS: "none of its own",
        }
        lines: list[Line] = [("ranks are on", "constants", "median error", "largest error")]
        for way, text in constants.items():
            if found := self.errors(way):
                lines.append((way, text, *(f"{100 * error:.0f} %" for error in found)))
        return lines

    def _held_out(self) -> list[Line]:
        lines: list[Line] = [("ranks are on", "ranks", "size", "measured ms", "model ms", "ratio")]
        for s in sorted(self.sums, key=lambda s: _ORDER.index(s.way)):
            if s.size in HELD_OUT:
                said = self.models[s.way](s.ranks, s.size)
                times = milliseconds(s.seconds), milliseconds(said), f"{said / s.seconds:.2f}"
                lines.append((s.way, str(s.ranks), shown_size(s.size), *times))
        return lines

    def _steps(self) -> list[Line]:
        lines: list[Line] = [
            ("rows of a step", "ranks are on", "ranks", "ms", "of it agreement", "rows/s",
             "gain", "ideal")
        ]  # fmt: skip
        fewest = min(s.ranks for s in self.steps)
        for step in sorted(self.steps, key=lambda s: (not s.fixed, _ORDER.index(s.way))):
            base = next(s for s in self.steps if s.ranks == fewest and s.fixed == step.fixed)
            gain = (step.rows / step.seconds) / (base.rows / base.seconds)
            ideal = min(step.ranks, self.cores) / min(fewest, self.cores)
            lines.append((
                f"{step.rows:,} in all" if step.fixed else f"{step.rows // step.ranks:,} a rank",
                step.way, str(step.ranks), milliseconds(step.seconds),
                f"{100 * min(1.0, step.agreeing / step.seconds):.0f} %",
                f"{step.rows / step.seconds:,.0f}", f"{gain:.2f}", f"{ideal:.0f}",
            ))  # fmt: skip
        return lines

    def predictions(self, size: float) -> list[tuple[int, int, Link, float]]:
        """Ranks, ranks of a host, network, and the predicted seconds of a sum."""
        found = []
        for ranks in _WORLDS:
            for per_host in (1, _PER_HOST):
                # Every rank of a real host has a core, so only its bytes cost.
                within = touched_bytes(per_host, size) * self.memory.constants[-1]
                for link in self.links:
                    over = link.ring_s(ranks // per_host, size)
                    found.append((ranks, per_host, link, over + (within if per_host > 1 else 0.0)))
        return found

    def _predictions(self, size: float) -> list[Line]:
        lines: list[Line] = [("ranks", "of a host", *(link.name for link in self.links))]
        found = self.predictions(size)
        for at in range(0, len(found), len(self.links)):
            ranks, per_host, _, _ = found[at]
            cells = [
                f"{milliseconds(seconds)}, {100 * efficiency(_STEP_S, seconds):.1f} %"
                for _, _, _, seconds in found[at : at + len(self.links)]
            ]
            lines.append((f"{ranks:,}", str(per_host), *cells))
        return lines

    def _claims(self) -> list[Line]:
        lines: list[Line] = [("claim", "bound", "measured", "")]
        for claim in self.claims():
            verdict = "holds" if claim.holds else "BELOW"
            lines.append((claim.text, f"at most {claim.bound:g}", f"{claim.measured:.3f}", verdict))
        return lines


def findings(cores: int, sums: Sequence[Sum], steps: Sequence[Step]) -> Findings:
    """Fit what was measured, without the sizes that are held out."""
    several = tuple(s for s in sums if s.ranks > 1)
    seen = [s for s in several if s.size not in HELD_OUT]
    ring = fit(ring_terms(cores), _points(seen, NETWORK))
    memory = fit(memory_terms(cores), _points(seen, MEMORY))
    return Findings(cores, several, tuple(steps), ring, memory)


def table(lines: Sequence[Line]) -> str:
    """A table of Markdown with its columns under each other; none without lines."""
    if len(lines) < 2:
        return ""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rule = ["-" * max(3, width) for width in widths]
    rows = [lines[0], rule, *lines[1:]]
    cells = [
        [cell.ljust(max(3, width)) for cell, width in zip(row, widths, strict=True)] for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def milliseconds(seconds: float) -> str:
    """With three figures or so."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown_size(size: int) -> str:
    """Bytes, for people."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def _touched() -> list[Line]:
    lines: list[Line] = [("ranks of the host", "small: times S", "large: times S", "ring sends")]
    for ranks in (2, 4, 8, 16):
        small, large = touched_bytes(ranks, 1), touched_bytes(ranks, MIB) / MIB
        numbers = small, large, ring_bytes(ranks, 1)
        lines.append((str(ranks), *(f"{number:.2f}" for number in numbers)))
    return lines


def _points(sums: Sequence[Sum], way: str) -> list[Point]:
    return [Point(s.ranks, s.size, s.seconds) for s in sums if s.way == way]


def _ratio(one: Sum) -> float:
    return one.sent / ring_bytes(one.hosts, one.size)


def _kinds(sums: Sequence[Sum]) -> list[tuple[str, int]]:
    return sorted({(s.way, s.ranks) for s in sums}, key=lambda k: (_ORDER.index(k[0]), k[1]))


def _of(sums: Sequence[Sum], way: str, ranks: int) -> list[Sum]:
    return sorted((s for s in sums if (s.way, s.ranks) == (way, ranks)), key=lambda s: s.size)


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:,.3g} µs" if seconds < 1e-3 else f"{milliseconds(seconds)} ms"


def _ns(seconds: float) -> str:
    return f"{1e9 * seconds:.3g} ns for each byte"
