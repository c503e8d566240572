"""Decoded columns and records become tensors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError, load_extra
from zoo.orca.data.image.decode import ImageDecoder
from zoo.orca.data.image.reading.batch_memory import InSlot, Recycler, Ring
from zoo.orca.data.image.reading.chunk_records import Decoder

__all__ = ["collate", "collate_columns", "collate_records", "scaled", "unscaled"]


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
    except (RuntimeError, TypeError) as exc:
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
        scale = decoder.scale if type(decoder) is ImageDecoder else None
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


def unscaled(decoder: Decoder) -> Decoder:
    """Return a decoder that leaves out what `collate_columns` does for a whole batch."""
    if type(decoder) is not ImageDecoder:
        return decoder
    return dataclasses.replace(decoder, scale=None, layout="HWC")


def _tensor(column: Any, decoder: Decoder | None) -> Any:
    if isinstance(column, load_extra("torch", "torch").Tensor):
        return column
    if isinstance(column, np.ndarray):
        return load_extra("torch", "torch").from_numpy(column)
    if type(decoder) is ImageDecoder:
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
