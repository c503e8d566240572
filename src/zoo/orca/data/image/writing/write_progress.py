"""Progress of a long write: a bar on a terminal or in a notebook, nothing in a log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from zoo.orca.data.image.layout.dataset_folder import entry_names, is_chunk
from zoo.orca.data.storage import Location

__all__ = ["watched"]

_LOOK_S = 0.5


@contextmanager
def watched(folder: Location, chunks: int, *, show: bool | None = None) -> Iterator[None]:
    """Show how many chunks are in a folder while the block runs.

    Args:
        folder: Where tasks write them, on any host.
        chunks: How many there will be.
        show: True shows it even in a log, False never; None only where a person looks.
    """
    if not (sys.stderr.isatty() or _in_notebook() if show is None else show):
        yield
        return
    done = threading.Event()
    with tqdm(total=chunks, unit="chunks", leave=False, desc="writing") as bar:
        watcher = threading.Thread(target=_follow, args=(folder, bar, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _follow(folder: Location, bar: Any, done: threading.Event) -> None:
    while not done.wait(_LOOK_S):
        try:
            there = sum(map(is_chunk, entry_names(folder)))
        except OSError:  # it may be gone already
            return
        bar.update(there - bar.n)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and "ZMQ" in type(shell.get_ipython()).__name__
