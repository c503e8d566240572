"""A loader that was made on the driver: it travels to the ranks, which share its batches."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.orca.learn.order import GivenData

__all__ = ["GivenLoader", "has_indices", "same_randomness"]

_log = logging.getLogger(__name__)


class GivenLoader(GivenData):
    """Makes in every rank the loader that was given.

    Args:
        blob: The pickled loader.
        batch_size: Of the loader; None where its batches are made in another way.

    Attributes:
        own_batch_size: Rows of its batches, of which all ranks together take one in a step; 1
            where it does not say.
    """

    def __init__(self, blob: bytes, batch_size: int | None) -> None:
        self._blob, self.own_batch_size = blob, batch_size or 1

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> GivenLoader:
        """Take a loader, which stays as it is.

        Raises:
            InputError: It cannot be pickled.
        """
        plain = copy.copy(loader)
        plain.__dict__["_iterator"] = None  # has processes, if it was gone through before
        if not has_indices(loader):
            _log.warning(
                "the batches of this loader are known only by going through it: every rank does, "
                "and takes its part of each batch. With several ranks that is exact if the loader "
                "gives the same each time; for large data, let a function f(config, batch_size) "
                "make a loader over the part of config['rank']."
            )
        return cls(pickled(plain, "a DataLoader"), loader.batch_size)

    def __call__(self, config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        """The loader, in a rank."""
        loader: DataLoader[Any] = unpickled(self._blob)
        return loader


def has_indices(loader: DataLoader[Any]) -> bool:
    """Whether a loader makes its batches from the numbers of rows, which a sampler draws."""
    own_way = type(loader).__iter__ is not DataLoader.__iter__
    streamed = isinstance(loader.dataset, IterableDataset)
    return not own_way and not streamed and loader.batch_sampler is not None


@contextmanager
def same_randomness(*key: int) -> Iterator[None]:
    """What is drawn from torch, numpy and Python in here depends on the key alone."""
    seed = hash(key) & 0xFFFFFFFF
    mine, others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(mine)
        np.random.set_state(others)
