"""Memory of batches that is used again and again.

A batch of images is many megabytes, and for a machine to hand out so many fresh pages takes
longer than to decode small images into them.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import load_extra

__all__ = ["InSlot", "Recycler", "Ring"]

_SPARE = 4
_SHARED_FOLDER = "/dev/shm"


class Recycler:
    """Makes tensors whose memory serves others once nobody holds them, or a view of them."""

    def __init__(self) -> None:
        self._spare: list[np.ndarray] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory out of what goes to another process."""
        return {"_spare": []}

    def tensor(self, shape: Sequence[int], kind: Any) -> Any:
        """Return a tensor with anything in it.

        Args:
            shape: Its shape.
            kind: Its torch dtype.
        """
        torch = load_extra("torch", "torch")
        size = math.prod(shape) * kind.itemsize
        block = self._block(size)
        leased = block[:size]
        # The storage of the tensor, and of all its views, holds exactly this array.
        whole = torch.from_numpy(leased)
        weakref.finalize(leased, self._give_back, block).atexit = False
        return whole.view(kind).view(tuple(shape))

    def _block(self, size: int) -> np.ndarray:
        for number, block in enumerate(self._spare):
            if size <= block.nbytes <= 2 * size:
                return self._spare.pop(number)
        return np.empty(size, np.uint8)

    def _give_back(self, block: np.ndarray) -> None:
        self._spare.append(block)
        del self._spare[:-_SPARE]


class InSlot(NamedTuple):
    """Images of a batch that lie in a ring.

    Attributes:
        worker: Whose slot it is.
        slot: Its number.
        start: Its first byte in the slot.
        shape: The shape of the images, all of bytes.
    """

    worker: int
    slot: int
    start: int
    shape: tuple[int, ...]


class Ring:
    """Shared memory in which workers leave images for the process that trains.

    A worker fills its slots in turn. torch asks it for another batch only when one of its batches
    was taken, so a slot comes around again after what is in it was copied away.

    Args:
        workers: How many there are.
        ahead: Batches that torch asks of a worker in advance.
        size: Bytes of the images of a batch.
    """

    def __init__(self, workers: int, ahead: int, size: int) -> None:
        torch = load_extra("torch", "torch")
        # One is being filled or waits for each that was asked for, and one is copied.
        self.slots = ahead + 2
        self._memory = torch.empty((workers, self.slots, size), dtype=torch.uint8).share_memory_()

    @classmethod
    def if_there_is_room(cls, workers: int, ahead: int, size: int) -> Ring | None:
        """Make a ring, unless shared memory is short: to run out of it kills a process."""
        try:
            facts = os.statvfs(_SHARED_FOLDER)
        except OSError:
            return None
        needed = workers * (ahead + 2) * size
        return (
            cls(workers, ahead, size) if 0 < 4 * needed < facts.f_bavail * facts.f_frsize else None
        )

    def tensor(self, place: InSlot) -> Any:
        """Return the images at a place."""
        stop = place.start + math.prod(place.shape)
        return self._memory[place.worker, place.slot, place.start : stop].view(place.shape)
