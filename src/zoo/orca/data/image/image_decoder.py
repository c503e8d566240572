"""Image bytes become arrays. Needs Pillow and NumPy only, so that any worker can afford it.

Pictures are 8 bits a channel in all modes but "F". What a file holds beyond that is never dropped
without a word: see `Deep`.
"""

from __future__ import annotations

import io
import re
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

__all__ = [
    "CHANNELS",
    "DAMAGE",
    "DEEP",
    "FORMATS",
    "MAX_PIXELS",
    "Deep",
    "ImageDecoder",
    "check_deep",
    "in_mode",
    "open_picture",
    "values_of",
]

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
"""The modes that arrays come in, and their number of channels."""

MAX_PIXELS = 2**26
"""Larger images are refused unless the caller allows them."""

Deep = Literal["refuse", "scale"]
"""What becomes of 16 bits a channel where 8 are wanted: an error, or their upper half."""
DEEP = ("refuse", "scale")
# Not those of BMP, where 16 bits are all channels together.
_SIXTEEN = re.compile(r"(?<!BGR);16")

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


def in_mode(image: Image.Image, mode: str, deep: Deep = "refuse") -> Image.Image:
    """Return the picture, loaded, as "L", "RGB" or "RGBA", whatever kind its file holds.

    Transparent pixels keep the colour under them; of several pictures in a file the first counts.

    Args:
        image: From `open_picture`, not yet loaded.
        mode: The mode.
        deep: What to do about 16 bits a channel. Other deep pictures have no range of their own
            that could be scaled: 32 bits and floats are refused in any case.

    Raises:
        InputError: The picture holds more than 8 bits a channel.
    """
    bits = _depth(image)
    if bits is not None and (deep == "refuse" or bits != "16 bits"):
        raise InputError(
            f"an image of 8 bits a channel for mode {mode!r}",
            f"one of {bits}",
            'Decode it with ImageDecoder(mode="F"), which keeps the values'
            + (
                ', or with deep="scale", which keeps their upper 8 bits.'
                if bits == "16 bits"
                else "."
            ),
        )
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255. Of coloured pictures it gives the upper bits itself.
        pixels = np.clip(np.asarray(image), 0, 0xFFFF)
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        # Any other way Pillow warns of the alpha that it drops.
        image = image.convert("RGBA")
    if image.mode != mode:
        return image.convert(mode)
    image.load()
    return image


def values_of(image: Image.Image) -> Image.Image:
    """Return the picture, loaded, in floats (mode "F") with the values that its file holds.

    Coloured pictures become grey, and must have 8 bits a channel for it.

    Raises:
        InputError: Floats do not hold a value, or Pillow gives only a part of it.
    """
    bits = _depth(image)
    if bits is not None and image.mode[0] not in "IF":
        raise InputError(
            "a grey image, or one of 8 bits a channel", f"one of {bits}", "Convert it."
        )
    kinds = _kinds(image)
    # Any other way Pillow warns of the alpha that it drops.
    floats = (in_mode(image, "L") if image.mode == "P" else image).convert("F")
    if image.mode == "I":
        pixels = np.asarray(image)
        # Pillow reads whole numbers without a sign as if they had one.
        wrapped = "I;32N" in kinds and pixels.min() < 0
        if wrapped or not np.array_equal(np.asarray(floats).astype(np.int64), pixels):
            raise InputError(
                "values that float32 holds exactly, up to 2**24",
                "larger ones",
                "Scale the image before it is stored.",
            )
    return floats


def check_deep(deep: str) -> None:
    """Refuse what is no way to treat deep pictures.

    Raises:
        InputError: It is none.
    """
    if deep not in DEEP:
        raise InputError("deep 'refuse' or 'scale'", repr(deep), "Choose one of them.")


def _depth(image: Image.Image) -> str | None:
    """What a picture that is not yet loaded has for a channel beyond 8 bits; None if nothing."""
    if image.mode == "F":
        return "floats"
    # Of coloured pictures Pillow tells only how it reads them; of PPM, the greatest value.
    kinds = " ".join(_kinds(image))
    if "I;12" in kinds or "I;16S" in kinds:
        return "12 bits" if "I;12" in kinds else "16 bits with a sign"
    if _SIXTEEN.search(kinds) or image.mode.startswith("I;16") or _greatest(image) > 255:
        return "16 bits"
    return "32 bits" if image.mode == "I" else None


def _kinds(image: Image.Image) -> list[str]:
    """How Pillow reads the pixels of a file, in its own words."""
    given = [tile[3] for tile in getattr(image, "tile", ())]
    return [str(one[0] if isinstance(one, tuple) and one else one) for one in given]


def _greatest(image: Image.Image) -> int:
    """The greatest value that a PPM file announces, which Pillow scales to 8 or 16 bits."""
    given = [tile[3] for tile in getattr(image, "tile", ())] if image.format == "PPM" else []
    return max((one[1] for one in given if isinstance(one, tuple) and len(one) == 2), default=0)


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
        mode: "L" (grey), "RGB" or "RGBA", of 8 bits a channel; images of other kinds are converted.
            "F" keeps the values of grey images of any depth, as float32 in one channel.
        size: (height, width) to resize to; None keeps each image's own size.
        layout: "CHW" (channel, height, width) or "HWC". Grey images have one channel.
        scale: Factor that makes float32 of the bytes; None keeps them as uint8, and in mode "F"
            the values as they are.
        max_pixels: Larger images are refused from their header, before any memory is taken.
        deep: What becomes of 16 bits a channel in the modes of 8 bits: "refuse" (an error), or
            "scale", where 0 to 65535 becomes 0 to 255 by dropping the lower 8 bits. Images of 32
            bits and of floats are for mode "F" only.

    Example:
        >>> ImageDecoder(mode="L", size=(8, 8)).shape
        (1, 8, 8)
    """

    mode: Literal["L", "RGB", "RGBA", "F"] = "RGB"
    size: tuple[int, int] | None = None
    layout: Literal["CHW", "HWC"] = "CHW"
    scale: float | None = 1 / 255
    max_pixels: int = MAX_PIXELS
    deep: Deep = "refuse"

    def __post_init__(self) -> None:
        """Refuse settings that no image can meet.

        Raises:
            InputError: A field is out of its range.
        """
        if self.mode not in (*CHANNELS, "F"):
            raise InputError("mode 'L', 'RGB', 'RGBA' or 'F'", repr(self.mode), "Choose one.")
        check_deep(self.deep)
        if self.scale is not None and not _is_factor(self.scale):
            raise InputError("scale as a number above 0, or None", repr(self.scale), "Correct it.")
        if not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise InputError("max_pixels as a positive int", repr(self.max_pixels), "Correct it.")
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
        bytes_stay = self.scale is None and self.mode != "F"
        return np.dtype(np.uint8 if bytes_stay else np.float32)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """The shape of the arrays, or None when each image keeps its own size."""
        if self.size is None:
            return None
        (height, width), channels = self.size, CHANNELS.get(self.mode, 1)
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
        image = values_of(image) if self.mode == "F" else in_mode(image, self.mode, self.deep)
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


def _is_factor(scale: object) -> bool:
    number = isinstance(scale, int | float | np.number) and not isinstance(scale, bool)
    return number and 0 < float(scale) < float("inf")  # type: ignore[arg-type] # a number
