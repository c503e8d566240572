"""The steps at the end of a pipeline: pictures become arrays, and arrays are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import CHANNELS
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.step import Array, ArrayStep, Generator, Picture, Step, check_numbers

__all__ = [
    "Layout",
    "Normalize",
    "ToArray",
    "ToCHW",
    "ToHWC",
    "ToNormalized",
    "pixels_of",
]

Layout: TypeAlias = Literal["CHW", "HWC"]


@dataclass(frozen=True)
class ToArray(Step):
    """The step from a picture to an array: `ToCHW` or `ToHWC`.

    Args:
        scale: Factor that makes float32 of the bytes; None keeps them as uint8.
    """

    layout: ClassVar[Layout]
    scale: float | None = 1 / 255

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_numbers(self, 1e-9, 1e9, "scale")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the arrays."""
        return np.dtype(np.uint8 if self.scale is None else np.float32)

    def shape_of(self, size: tuple[int, int] | None, channels: int) -> tuple[int, ...] | None:
        """The shape that a picture of a (width, height) becomes."""
        if size is None:
            return None
        width, height = size
        return (channels, height, width) if self.layout == "CHW" else (height, width, channels)

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Array, Boxes | None]:
        """Make an array in memory of its own."""
        return self.scaled(image, None if self.scale is None else np.float32(self.scale)), boxes

    def scaled(self, image: Picture, factor: Array | np.float32 | None) -> Array:
        """Reorder, cast and multiply in one pass; a factor may be one for each channel."""
        pixels = pixels_of(image)
        if self.layout == "CHW":
            pixels = pixels.transpose(2, 0, 1)
        if factor is None:
            return np.array(pixels, order="C")
        array = np.empty(pixels.shape, np.float32)
        np.multiply(pixels, factor, out=array)
        return array


class ToCHW(ToArray):
    """The picture becomes an array (channel, height, width), as PyTorch's models take it."""

    layout = "CHW"


class ToHWC(ToArray):
    """The picture becomes an array (height, width, channel), as Keras models take it."""

    layout = "HWC"


@dataclass(frozen=True)
class Normalize(ArrayStep):
    """Subtract the mean of each channel and divide by its deviation; the result is float32.

    Args:
        mean: A number for each channel, or one for all, in the scale of the array.
        std: The same.
        layout: Where the channels are; None is the layout of the pipeline's `ToCHW` or `ToHWC`.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]
    layout: Layout | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = np.atleast_1d(np.asarray(getattr(self, name), dtype=object))
            numbers = all(isinstance(n, int | float | np.number) and np.isfinite(n) for n in given)
            if not numbers or not given.size or (name == "std" and min(given) <= 0):
                raise InputError(
                    f"finite numbers as {name}" + (", above 0" if name == "std" else ""),
                    repr(getattr(self, name)),
                    "Correct Normalize.",
                )
            object.__setattr__(self, name, tuple(float(number) for number in given))
        if self.layout not in ("CHW", "HWC", None):
            raise InputError("layout 'CHW', 'HWC' or None", repr(self.layout), "Choose one.")

    def check(self, mode: str) -> None:
        """Refuse another number of means or deviations than channels."""
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, CHANNELS[mode]):
                raise InputError(
                    f"{name} as one number or {CHANNELS[mode]}, for the channels of mode {mode!r}",
                    f"{count} numbers",
                    "Correct Normalize, or the mode of the pipeline.",
                )

    def apply(
        self, array: Array, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Array, Boxes | None]:
        """Normalise, in memory of its own."""
        factor, offset = self.coefficients()
        out = np.empty(array.shape, np.float32)
        np.multiply(array, factor, out=out, casting="same_kind")
        out += offset
        return out, boxes

    def coefficients(self, scale: float = 1.0) -> tuple[Array, Array]:
        """What to multiply by and then to add, in a form that meets the channels of an array.

        Args:
            scale: A factor that goes before.
        """
        mean, std = np.atleast_1d(np.asarray(self.mean)), np.atleast_1d(np.asarray(self.std))
        mean, std = np.broadcast_arrays(mean, std)
        shape = (-1,) if self.layout == "HWC" else (-1, 1, 1)
        factor, offset = scale / std, -mean / std
        return factor.astype(np.float32).reshape(shape), offset.astype(np.float32).reshape(shape)

    def shape_after(self, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The same."""
        return shape

    def dtype_after(self, dtype: np.dtype[Any] | None) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)


@dataclass(frozen=True)
class ToNormalized(Step):
    """`ToCHW` or `ToHWC` and the `Normalize` behind it, in two passes over the memory of one."""

    to_array: ToArray
    normalize: Normalize

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator | None = None
    ) -> tuple[Array, Boxes | None]:
        """Make a normalised array in memory of its own."""
        scale = self.to_array.scale
        factor, offset = self.normalize.coefficients(1.0 if scale is None else scale)
        array = self.to_array.scaled(image, factor)
        array += offset
        return array, boxes


def pixels_of(image: Picture) -> Array:
    """The bytes of a picture as (height, width, channel); they may be read-only."""
    pixels: Array = np.asarray(image)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
