"""Goes through a dataset again and again, each time as it would be in any other process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import tensorflow as tf

from zoo.orca.learn.tfdata.elements import Arrays

__all__ = ["Passes"]


class Passes:
    """The passes over a dataset.

    A dataset that shuffles, or whose generator counts, gives another order each time it is gone
    through. In a process that begins later, the passes before are begun too, and left after their
    first element.

    Args:
        make: Makes the dataset, the same each time.
        dataset: One that was made already.
    """

    def __init__(
        self, make: Callable[[], tf.data.Dataset], dataset: tf.data.Dataset | None = None
    ) -> None:
        self._make = make
        self._dataset = make() if dataset is None else dataset
        self._begun = 0
        self._peeked: Iterator[Arrays] | None = None

    def peek(self) -> Arrays | None:
        """The first element of the first pass; None without any."""
        batches = self.batches(0)
        first = next(batches, None)
        self._peeked = itertools.chain([] if first is None else [first], batches)
        return first

    def batches(self, number: int | None = None) -> Iterator[Arrays]:
        """The elements of a pass, counted from 0; None for the next one, whatever it is."""
        peeked, self._peeked = self._peeked, None
        if peeked is not None and number in (None, self._begun - 1):
            return peeked
        if number is None:
            return self._begin()
        if number < self._begun:
            self._dataset, self._begun = self._make(), 0
        while self._begun < number:
            next(self._begin(), None)
        return self._begin()

    def _begin(self) -> Iterator[Arrays]:
        self._begun += 1
        return (tf.nest.flatten(element) for element in self._dataset.as_numpy_iterator())
