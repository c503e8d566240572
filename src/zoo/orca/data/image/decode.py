"""Image bytes become arrays. Needs Pillow and NumPy only, so that any worker can afford it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from zoo.errors import InputError

__all__ = ["CHANNELS", "DAMAGE", "FORMATS", "MAX_PIXELS", "ImageDecoder", "in_mode", "open_picture"]

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
"""The modes that arrays come in, and their number of channels."""

MAX_PIXELS = 2**26
"""Larger images are refused unless the caller allows them."""

_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
# A closed list: some of Pillow's other readers start programs (EPS) or are rarely looked after.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, as Pillow calls them."""
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers let through on damaged files."""


@contextmanager
def open_picture(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open the bytes of an image file; what damage raises inside becomes an `InputError`.

    Only the header is read here: load or convert the picture inside.

    Args:
        data: A whole file.
        max_pixels: Larger images are refused.

    Raises:
        InputError: The bytes are no image, a damaged one, or one with too many pixels.
    """
    is_bytes = isinstance(data, (bytes, bytearray, memoryview))
    if not is_bytes or len(data) == 0:
        received = "zero bytes" if is_bytes else type(data).__name__
        raise InputError("the bytes of an image file", received, "Check the image column.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(max_pixels, f"{image.width} x {image.height} pixels")
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(max_pixels, str(exc)) from exc
    except UnidentifiedImageError as exc:
        raise InputError(
            f"the bytes of an image file ({', '.join(FORMATS)})",
            f"{len(data)} bytes that start with {bytes(data[:8])!r}",
            "Remove or replace this image.",
        ) from exc
    except DAMAGE as exc:
        raise InputError(
            "a whole image file",
            f"{len(data)} bytes that end early or are damaged ({exc})",
            "Remove or replace this image.",
        ) from exc


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the picture, loaded, as "L", "RGB" or "RGBA", whatever kind its file holds.

    Transparent pixels keep the colour under them.
    """
    if image.mode in _DEEP:
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        pixels = np.clip(np.asarray(image), 0, 0xFFFF)
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        # Any other way Pillow warns of the alpha that it drops.
        image = image.convert("RGBA")
    if image.mode != mode:
        return image.convert(mode)
    image.load()
    return image


def _too_large(max_pixels: int, received: str) -> InputError:
    return InputError(
        f"an image of at most {max_pixels} pixels",
        received,
        "Raise max_pixels if you trust the file.",
    )


@dataclass(frozen=True)
class ImageDecoder:
    """Turns the bytes of an image file into an array; picklable, and callable on the bytes.

    Args:
        mode: "L" (grey), "RGB" or "RGBA". Images of other kinds are converted.
        size: (height, width) to resize to; None keeps each image's own size.
        layout: "CHW" (channel, height, width) or "HWC". Grey images have one channel.
        scale: Factor that makes float32 of the bytes; None keeps them as uint8.
        max_pixels: Larger images are refused from their header, before any memory is taken.

    Example:
        >>> ImageDecoder(mode="L", size=(8, 8)).shape
        (1, 8, 8)
    """

    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    size: tuple[int, int] | None = None
    layout: Literal["CHW", "HWC"] = "CHW"
    scale: float | None = 1 / 255
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse settings that no image can meet.

        Raises:
            InputError: A field is out of its range.
        """
        if self.mode not in CHANNELS:
            raise InputError("mode 'L', 'RGB' or 'RGBA'", repr(self.mode), "Choose one of them.")
        if self.layout not in ("CHW", "HWC"):
            raise InputError("layout 'CHW' or 'HWC'", repr(self.layout), "Choose one of them.")
        if self.size is None:
            return
        if len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise InputError("size as (height, width)", repr(self.size), "Give two positive ints.")
        object.__setattr__(self, "size", tuple(self.size))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the arrays: float32, or uint8 without a scale."""
        return np.dtype(np.uint8 if self.scale is None else np.float32)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """The shape of the arrays, or None when each image keeps its own size."""
        if self.size is None:
            return None
        (height, width), channels = self.size, CHANNELS[self.mode]
        return (channels, height, width) if self.layout == "CHW" else (height, width, channels)

    def __call__(self, data: bytes) -> npt.NDArray[Any]:
        """Decode one image; the array is contiguous, writable and the caller's own.

        Raises:
            InputError: The bytes are no image, a damaged one, or one with too many pixels.
        """
        with open_picture(data, self.max_pixels) as image:
            return self._to_array(self._converted(image))

    def _converted(self, image: Image.Image) -> Image.Image:
        if self.size is not None:
            # JPEG can be decoded at a fraction of its size; twice the target keeps the quality.
            image.draft(self.mode, (2 * self.size[1], 2 * self.size[0]))
        image = in_mode(image, self.mode)
        if self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
        return image

    def _to_array(self, image: Image.Image) -> npt.NDArray[Any]:
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        if self.layout == "CHW":
            pixels = pixels.transpose(2, 0, 1)
        # One pass reorders, casts and scales into memory of the final layout.
        array = np.empty(pixels.shape, self.dtype)
        if self.scale is None:
            array[...] = pixels
        else:
            np.multiply(pixels, np.float32(self.scale), out=array)
        return array
