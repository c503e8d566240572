"""Decoded columns and records become the tensors of a batch, in memory that is used again.

A batch of images is many megabytes, and for a machine to hand out so many fresh pages takes
longer than to decode small images into them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError, load_extra
from zoo.orca.data.image.image_decoder import ImageDecoder
from zoo.orca.data.image.reading.records import Decoder

__all__ = [
    "InSlot",
    "Recycler",
    "Ring",
    "collate",
    "collate_columns",
    "collate_records",
    "makes_bytes",
    "scaled",
    "unscaled",
]

_SPARE = 4
_SHARED_FOLDER = "/dev/shm"


# Memory


class Recycler:
    """Makes tensors whose memory serves others once nobody holds them, or a view of them."""

    def __init__(self) -> None:
        # Finalizers give arrays back in any thread and between any two steps of this one, so a
        # lock could wait for itself: each step takes one array out of the queue, or puts one in.
        self._spare: deque[np.ndarray] = deque(maxlen=_SPARE)

    def __reduce__(self) -> tuple[type[Recycler], tuple[()]]:
        """Leave the memory out of what goes to another process."""
        return Recycler, ()

    def tensor(self, shape: Sequence[int], kind: Any) -> Any:
        """Return a tensor with anything in it.

        Args:
            shape: Its shape.
            kind: Its torch dtype.
        """
        torch = load_extra("torch", "torch")
        size = math.prod(shape) * kind.itemsize
        whole = self._at_least(size)
        leased = whole[:size]
        # The storage of the tensor, and of all its views, holds exactly this array.
        tensor = torch.from_numpy(leased)
        weakref.finalize(leased, self._spare.append, whole).atexit = False
        return tensor.view(kind).view(tuple(shape))

    def _at_least(self, size: int) -> np.ndarray:
        for _ in range(len(self._spare)):
            try:
                spare = self._spare.popleft()
            except IndexError:  # another thread took the last one
                break
            if size <= spare.nbytes <= 2 * size:
                return spare
            self._spare.append(spare)
        return np.empty(size, np.uint8)


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


# Tensors


def collate(pending: Any) -> Any:
    """Put together the batch that a dataset of ours has pending.

    Raises:
        InputError: The records cannot be used, or do not stack.
    """
    return pending.collated()


def collate_records(records: list[Any]) -> Any:
    """Put records together by torch's default rule.

    Raises:
        InputError: They do not stack.
    """
    default_collate = load_extra("torch.utils.data", "torch").default_collate
    try:
        return default_collate(records)
    except (RuntimeError, TypeError, ValueError) as exc:
        raise InputError(
            "records that stack into a batch, with values of one type and shape",
            f"others ({exc})",
            "Give images one size with decoders={'image': ImageDecoder(size=...)} or a transform.",
        ) from exc


def collate_columns(columns: Mapping[str, Any], decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Put decoded columns together, as torch's default rule does with their records.

    Args:
        columns: The columns, where images that an `ImageDecoder` decodes come as `unscaled`
            makes them, or as `BatchRecords` has put them into a tensor or a ring.
        decoders: The decoder of each column that has one.

    Returns:
        Tensors, with the images still to be scaled; what lies in a ring, and what comes along
        with that, stays as it is until it has arrived.

    Raises:
        InputError: The values of a column do not stack.
    """
    if any(isinstance(column, InSlot) for column in columns.values()):
        return {name: _sent(column, decoders.get(name)) for name, column in columns.items()}
    return {name: _tensor(column, decoders.get(name)) for name, column in columns.items()}


def scaled(
    batch: Mapping[str, Any],
    decoders: Mapping[str, Decoder],
    memory: Recycler,
    ring: Ring | None = None,
) -> dict[str, Any]:
    """Scale the images of a batch, and take them out of the ring they came in.

    Args:
        batch: Columns, from `collate_columns`.
        decoders: The decoder of each column that has one.
        memory: Where batches lie.
        ring: How workers send them.
    """
    torch = load_extra("torch", "torch")
    result: dict[str, Any] = {}
    for name, column in batch.items():
        decoder = decoders.get(name)
        scale = decoder.scale if makes_bytes(decoder) else None
        given = column
        if isinstance(column, InSlot):
            assert ring is not None
            given = ring.tensor(column)
        elif isinstance(column, np.ndarray):
            given = torch.from_numpy(column)
        if scale is not None:
            given = _scale(given, scale, _empty(given.shape, torch.float32, memory))
        elif isinstance(column, InSlot):
            given = memory.tensor(given.shape, torch.uint8).copy_(given)
        result[name] = given
    return result


def _scale(images: Any, scale: float, out: Any) -> Any:
    """Scale bytes into floats."""
    # Not torch.mul: it makes a copy of the images as floats first, and takes cores from workers.
    np.multiply(images.numpy(), np.float32(scale), out=out.numpy())
    return out


def _sent(column: Any, decoder: Decoder | None) -> Any:
    """What a worker sends: arrays as they are, since each tensor takes a descriptor of its own."""
    if isinstance(column, InSlot | np.ndarray):
        return column
    return _tensor(column, decoder)


def makes_bytes(decoder: Decoder | None) -> TypeGuard[ImageDecoder]:
    """Say whether a decoder makes images of bytes, which can be scaled for a whole batch."""
    return type(decoder) is ImageDecoder and decoder.mode != "F"


def unscaled(decoder: Decoder) -> Decoder:
    """Return a decoder that leaves out what `collate_columns` does for a whole batch."""
    if not makes_bytes(decoder):
        return decoder
    return dataclasses.replace(decoder, scale=None, layout="HWC")


def _tensor(column: Any, decoder: Decoder | None) -> Any:
    if isinstance(column, load_extra("torch", "torch").Tensor):
        return column
    if isinstance(column, np.ndarray):
        return load_extra("torch", "torch").from_numpy(column)
    if makes_bytes(decoder):
        return _images(column, decoder)
    return collate_records(column)


def _images(images: list[npt.NDArray[np.uint8]], decoder: ImageDecoder) -> Any:
    """Turn decoded images around, straight into the memory of the batch."""
    torch = load_extra("torch", "torch")
    if len({image.shape for image in images}) > 1:
        return collate_records([torch.from_numpy(image) for image in images])  # the usual error
    height, width, channels = images[0].shape
    channels_first = decoder.layout == "CHW"
    shape = (channels, height, width) if channels_first else (height, width, channels)
    batch = _empty((len(images), *shape), torch.uint8)
    for pixels, place in zip(images, batch.numpy(), strict=True):
        np.copyto(place, pixels.transpose(2, 0, 1) if channels_first else pixels)
    return batch


def _empty(shape: Sequence[int], kind: Any, memory: Recycler | None = None) -> Any:
    """Return a tensor for a batch; in a worker it lies where the trainer's process sees it."""
    torch = load_extra("torch", "torch")
    if load_extra("torch.utils.data", "torch").get_worker_info() is None:
        return memory.tensor(shape, kind) if memory else torch.empty(tuple(shape), dtype=kind)
    # As torch's own rule does: a batch made elsewhere would be copied on its way.
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * kind.itemsize)
    return torch.empty(0, dtype=kind).set_(storage, 0, tuple(shape))
