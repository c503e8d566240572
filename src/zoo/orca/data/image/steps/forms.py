"""The forms that an image takes between steps that functions of the user's own are among.

A Pillow picture; an array (height, width, channel), or in the layout of `ToCHW` and `ToHWC` behind
these; or a tensor of torch (channel, height, width).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import CHANNELS
from zoo.orca.data.image.steps.arrays import pixels_of
from zoo.orca.data.image.steps.step import Array, Picture

__all__ = ["as_array", "as_picture", "as_pixels", "is_tensor"]

_PIXELS = "a picture, or the bytes of its pixels as uint8 (height, width, channel)"


def is_tensor(image: object) -> bool:
    """Whether an image is a tensor of torch."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def as_array(image: Any) -> Array:
    """The array of an image, in the layout that it has."""
    if isinstance(image, Image.Image):
        return pixels_of(image)
    array: Array = image.detach().cpu().numpy() if is_tensor(image) else np.asarray(image)
    return array


def as_pixels(image: Any) -> Array:
    """The array of an image as (height, width, channel); what is an array already has this layout.

    Raises:
        InputError: It is neither of two nor of three dimensions.
    """
    array = as_array(image)
    if array.ndim not in (2, 3):
        raise InputError(_PIXELS, f"an array of shape {array.shape}", "Mend the step before.")
    if array.ndim == 2:
        return array[:, :, np.newaxis]
    return array.transpose(1, 2, 0) if is_tensor(image) else array


def as_picture(image: Any) -> Picture:
    """The picture of an image.

    Raises:
        InputError: It is none of the modes of a pipeline, or its array holds no bytes.
    """
    if isinstance(image, Image.Image):
        if image.mode in CHANNELS:
            return image
        raise InputError(
            f"a picture of mode {', '.join(CHANNELS)}",
            f"mode {image.mode!r}",
            "Convert it in the step before.",
        )
    pixels = as_pixels(image)
    if pixels.dtype != np.uint8 or pixels.shape[2] not in CHANNELS.values():
        raise InputError(
            _PIXELS,
            f"{type(image).__name__} of shape {tuple(np.shape(image))} and type {pixels.dtype}",
            "Move the steps that make numbers of it behind those on pictures.",
        )
    return Image.fromarray(
        np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    )
