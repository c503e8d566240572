"""Ranks as threads, of which one runs at a time: each goes on when all have said something."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Rank", "on_ranks"]

T = TypeVar("T")


@dataclass
class Rank:
    """What a rank knows of the others."""

    rank: int
    size: int
    said: list[Any]
    turn: threading.Lock
    all_here: threading.Barrier

    def share(self, value: Any) -> list[Any]:
        """What all ranks say."""
        self.said[self.rank] = value
        self.turn.release()
        try:
            self.all_here.wait(60)
            found = list(self.said)
            self.all_here.wait(60)
        finally:
            self.turn.acquire()
        return found


def on_ranks(size: int, work: Callable[[Rank], T]) -> list[T]:
    """Call a function on each rank."""
    turn, here = threading.Lock(), threading.Barrier(size)

    def run(rank: int) -> T:
        with turn:
            try:
                return work(Rank(rank, size, said, turn, here))
            except BaseException:
                here.abort()
                raise

    said: list[Any] = [None] * size
    with ThreadPoolExecutor(size) as pool:
        done = [pool.submit(run, rank) for rank in range(size)]
    errors = [f.exception() for f in done if f.exception() is not None]
    own = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
    if errors:
        raise (own or errors)[0]  # type: ignore[misc]
    return [f.result() for f in done]
