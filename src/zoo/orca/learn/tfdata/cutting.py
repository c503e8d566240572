"""From the batches of a dataset to steps, and from these to the part of a rank. Numpy alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from zoo.orca.learn.tfdata.elements import Arrays, rows_of

__all__ = ["Pieces", "cut_steps", "group_steps", "part_of"]

Pieces = list[Arrays]
"""The rows of a step as they come: batches of the dataset, or parts of them."""


def cut_steps(batches: Iterable[Arrays], rows: int) -> Iterator[Pieces]:
    """Steps of so many rows, whatever the batches have; the last one may be short."""
    held: Pieces = []
    count = 0
    for arrays in batches:
        at, end = 0, rows_of(arrays)
        while end - at >= rows - count:
            cut = at + rows - count
            yield [*held, [array[at:cut] for array in arrays]]
            held, count, at = [], 0, cut
        if at < end:
            held.append([array[at:] for array in arrays])
            count += end - at
    if held:
        yield held


def group_steps(batches: Iterable[Arrays], count: int) -> Iterator[Pieces]:
    """Steps of so many batches; the last one may have fewer."""
    given = iter(batches)
    while step := list(itertools.islice(given, count)):
        yield step


def part_of(step: Pieces, rank: int, size: int) -> Arrays | None:
    """The rows of a rank in a step; None without any."""
    total = sum(len(piece[0]) for piece in step)
    low, high = rank * total // size, (rank + 1) * total // size
    mine, at = [], 0
    for piece in step:
        rows = len(piece[0])
        first, last = max(0, low - at), min(rows, high - at)
        if first < last:
            mine.append([array[first:last] for array in piece])
        at += rows
    if len(mine) > 1:
        return [np.concatenate(parts) for parts in zip(*mine, strict=True)]
    return mine[0] if mine else None
