"""What a sum over ranks should cost: formulas, their constants by least squares, predictions.

A ring sends, for a sum over N ranks of S bytes each, 2(N-1) messages one after the other and
2(N-1)/N S bytes from every rank. So its time is 2(N-1) alpha + 2(N-1)/N S beta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

__all__ = [
    "LINKS",
    "Fit",
    "Link",
    "Point",
    "efficiency",
    "errors",
    "fit",
    "memory_terms",
    "ring_bytes",
    "ring_terms",
    "touched_bytes",
    "two_levels",
]

# As `zoo.orca.learn.agree.collective` decides it.
_WHOLE_BYTES = 512 * 1024


@dataclass(frozen=True)
class Point:
    """A sum and its time.

    Attributes:
        ranks: How many take part.
        size: Bytes of each rank's array.
        seconds: What it took.
    """

    ranks: int
    size: int
    seconds: float


Terms = Callable[[int, int], Sequence[float]]
"""What each constant of a formula is multiplied with, for so many ranks and bytes."""


@dataclass(frozen=True)
class Fit:
    """A formula with its constants.

    Attributes:
        terms: The formula.
        constants: Seconds for each unit of a term.
    """

    terms: Terms
    constants: tuple[float, ...]

    def seconds(self, ranks: int, size: int) -> float:
        """The time of a sum after this formula."""
        return float(np.dot(self.terms(ranks, size), self.constants))


@dataclass(frozen=True)
class Link:
    """A network, as it is assumed.

    Attributes:
        name: For people.
        alpha: Seconds of a message without its bytes.
        beta: Seconds for each byte.
    """

    name: str
    alpha: float
    beta: float

    def ring_s(self, ranks: int, size: float) -> float:
        """Seconds of a sum of so many bytes over so many ranks, each on a host of its own."""
        return 2 * (ranks - 1) * self.alpha + ring_bytes(ranks, size) * self.beta


LINKS = (Link("10 Gbit/s", 50e-6, 8 / 10e9), Link("100 Gbit/s", 25e-6, 8 / 100e9))
"""Assumptions: the line's own rate, and what a message between two processes may take."""


def ring_bytes(ranks: int, size: float) -> float:
    """Bytes that each rank of a ring sends: the least that any way can do with."""
    return 2 * (ranks - 1) / ranks * size


def touched_bytes(ranks: int, size: float, *, led: bool = False) -> float:
    """Bytes that each rank of one host reads and writes, in its own memory and in the shared one.

    Small arrays: copy its values in (2 S), then add everybody's to its own (3 S for each other
    rank). Large ones, and all when a rank goes on to sum over hosts (`led`): copy in (2 S), add an
    N-th part (3 S / N for each other rank), copy the sums out (2 S).
    """
    if ranks * size <= _WHOLE_BYTES and not led:
        return (2 + 3 * (ranks - 1)) * size
    return (4 + 3 * (ranks - 1) / ranks) * size


def _waits(ranks: int, size: float, *, led: bool) -> int:
    """Times that a rank waits for others: for their values, their parts, and the other hosts."""
    if led:
        return 3
    return 1 if ranks * size <= _WHOLE_BYTES else 2


def ring_terms(cores: int) -> Terms:
    """A ring on one machine: bytes are work of its cores, and for a message a rank needs one."""

    def terms(ranks: int, size: int) -> Sequence[float]:
        sharers = _sharers(ranks, cores)
        return sharers * 2 * (ranks - 1), sharers * ring_bytes(ranks, size)

    return terms


def memory_terms(cores: float, *, led: bool = False) -> Terms:
    """Ranks of one host: a wait is short while every rank has a core, and then one for a turn."""

    def terms(ranks: int, size: int) -> Sequence[float]:
        sharers, waits = _sharers(ranks, cores), _waits(ranks, size, led=led)
        crowded = ranks > cores
        touched = sharers * touched_bytes(ranks, size, led=led)
        return waits * (not crowded), waits * crowded * sharers, touched

    return terms


def _sharers(ranks: int, cores: float) -> float:
    return max(1.0, ranks / cores)


def fit(terms: Terms, points: Sequence[Point]) -> Fit:
    """Find the constants with the least squares of relative errors; none is negative.

    Args:
        terms: The formula.
        points: Measured sums.
    """
    rows = np.array([terms(p.ranks, p.size) for p in points], float)
    rows /= np.array([[p.seconds] for p in points])
    constants = np.zeros(rows.shape[1])
    free = np.flatnonzero(rows.any(axis=0))
    while free.size:
        found = np.linalg.lstsq(rows[:, free], np.ones(len(rows)), rcond=None)[0]
        if (found >= 0).all():
            constants[free] = found
            break
        free = np.delete(free, found.argmin())
    return Fit(terms, tuple(constants.tolist()))


def errors(
    seconds: Callable[[int, int], float], points: Sequence[Point]
) -> tuple[float, float] | None:
    """Median and largest relative error of a formula; None without points."""
    found = [abs(seconds(p.ranks, p.size) / p.seconds - 1) for p in points]
    return (float(median(found)), float(max(found))) if found else None


def two_levels(memory: Fit, ring: Fit, hosts: int, cores: int) -> Callable[[int, int], float]:
    """Sums within hosts, then over them: composed of two fits, with no constant of its own.

    Args:
        memory: For the ranks of one host.
        ring: For one rank of each host.
        hosts: How many. All are simulated on this machine, so each has its part of the cores.
        cores: Of this machine.
    """
    within = Fit(memory_terms(cores / hosts, led=True), memory.constants)
    return lambda ranks, size: within.seconds(ranks // hosts, size) + ring.seconds(hosts, size)


def efficiency(step_s: float, agreeing_s: float) -> float:
    """The part of the time that is left for computing when every step waits for its sum."""
    return step_s / (step_s + agreeing_s)
