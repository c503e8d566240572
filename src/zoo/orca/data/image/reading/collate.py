"""Decoded columns and records become tensors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError, load_extra
from zoo.orca.data.image.decode import ImageDecoder
from zoo.orca.data.image.reading.chunk_records import Decoder
from zoo.orca.data.image.reading.part_values import Column

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


def collate_columns(
    columns: Mapping[str, Column], decoders: Mapping[str, Decoder], *, scale: bool = True
) -> dict[str, Any]:
    """Put decoded columns together, as torch's default rule does with their records.

    Args:
        columns: The columns, where images that an `ImageDecoder` decodes come as `unscaled`
            makes them.
        decoders: The decoder of each column that has one.
        scale: Whether to scale images, or leave that to `scaled`.

    Raises:
        InputError: The values of a column do not stack.
    """
    batch = {name: _tensor(column, decoders.get(name)) for name, column in columns.items()}
    return scaled(batch, decoders) if scale else batch


def scaled(batch: Mapping[str, Any], decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Scale the images of a batch.

    Args:
        batch: Columns, from `collate_columns`.
        decoders: The decoder of each column that has one.
    """
    torch = load_extra("torch", "torch")
    result = dict(batch)
    for name, decoder in decoders.items():
        if type(decoder) is ImageDecoder and decoder.scale is not None:
            result[name] = torch.mul(batch[name], decoder.scale, out=_empty_like(batch[name]))
    return result


def unscaled(decoder: Decoder) -> Decoder:
    """Return a decoder that leaves out what `collate_columns` does for a whole batch."""
    if type(decoder) is not ImageDecoder:
        return decoder
    return dataclasses.replace(decoder, scale=None, layout="HWC")


def _tensor(column: Column, decoder: Decoder | None) -> Any:
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


def _empty_like(batch: Any) -> Any:
    return _empty(tuple(batch.shape), load_extra("torch", "torch").float32)


def _empty(shape: tuple[int, ...], kind: Any) -> Any:
    """Return a tensor for a batch; in a worker it lies where the trainer's process sees it."""
    torch = load_extra("torch", "torch")
    if load_extra("torch.utils.data", "torch").get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    # As torch's own rule does: a batch made elsewhere would be copied on its way.
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * kind.itemsize)
    return torch.empty(0, dtype=kind).set_(storage, 0, shape)
