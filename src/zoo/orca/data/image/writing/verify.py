"""Is this an image? Asked of each file while a dataset is written, so the answer must be cheap."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

from PIL import Image, UnidentifiedImageError

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import DAMAGE, FORMATS, MAX_PIXELS
from zoo.orca.data.image.on_error import OnError, check_on_error

__all__ = [
    "MAX_PIXELS",
    "Screening",
    "SizedImage",
    "Verify",
    "check_image",
    "size_of_image",
]

Verify = Literal["none", "header", "decode"]

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEADER = struct.Struct(">II5BI")
_JPEG_SIZE = struct.Struct(">BHHB")
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive: Huffman-coded
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_NO_SEGMENT = frozenset((0x00, 0x01, *range(0xC3, 0xDB), 0xFF)) - {0xC4}  # no usual file's start


@dataclass(frozen=True)
class Screening:
    """What is asked of input files, and what becomes of a bad one.

    Args:
        on_error: "fail" ends the write with an error that names the file; "skip" leaves it out
            and counts it; "quarantine" also lists it, with the reason, in the dataset.
        verify: "none" takes any bytes, "header" wants an image's first bytes, "decode" an image
            that decodes to its end.
        max_pixels: Images with more of them are bad.
    """

    on_error: OnError = "fail"
    verify: Verify = "header"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse words that are none of these.

        Raises:
            InputError: A field has another value.
        """
        check_on_error(self.on_error)
        if self.verify not in ("none", "header", "decode"):
            raise InputError(
                "verify 'none', 'header' or 'decode'", repr(self.verify), "Choose one of them."
            )


@dataclass(frozen=True)
class SizedImage(os.PathLike[str]):
    """The path of an image file whose annotation tells its size, by which boxes were divided.

    Args:
        path: The file.
        width: As annotated, in pixels.
        height: As annotated, in pixels.
    """

    path: str
    width: float
    height: float

    def __fspath__(self) -> str:
        """Return the path."""
        return self.path

    def __str__(self) -> str:
        """Return the path."""
        return self.path

    def misfit(self, data: bytes) -> InputError | None:
        """Say that the file's header tells another size than the annotation, if it does.

        Args:
            data: The bytes of the file, which `check_image` found good.
        """
        size = size_of_image(data)
        if size == (self.width, self.height):
            return None
        stored, told = "{} x {} pixels".format(*size), f"{self.width:g} x {self.height:g}"
        turn = _turn_of(data) if size == (self.height, self.width) else None
        if turn is None:
            return InputError(
                f"an annotation for the image's {stored}",
                f"one for {told}",
                "Correct its size and boxes, or put the image there that was annotated.",
            )
        return InputError(
            f"an annotation for the image as it is stored, {stored}",
            f"one for {told}, as viewers show it: the camera's note (EXIF orientation {turn}) "
            "turns it, decoding does not",
            "Turn the boxes back, or turn the image itself and remove the note.",
        )


def size_of_image(data: bytes) -> tuple[int, int]:
    """Return the width and height in the header of an image file that `check_image` found good."""
    size = _size_of_png(data) or _size_of_jpeg(data)
    if size is None:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.size
    return size


def _turn_of(data: bytes) -> int | None:
    """The EXIF orientation of a picture that viewers lay on its side."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            turn = image.getexif().get(_ORIENTATION)
    except DAMAGE:
        return None
    return turn if turn in _ON_ITS_SIDE else None


def check_image(data: bytes, verify: Verify = "header", max_pixels: int = MAX_PIXELS) -> str | None:
    """Say what is wrong with the bytes of an image file.

    The name of the file does not matter: a good PNG called `.jpg` is good.

    Args:
        data: The bytes.
        verify: How far to look, as in `Screening`.
        max_pixels: Larger images are bad.

    Returns:
        The reason why it is bad, or None.
    """
    if not data:
        return "zero bytes"
    if verify == "none":
        return None
    size = _size_of_png(data) or _size_of_jpeg(data) if verify == "header" else None
    if size is not None:
        return _too_large(*size, max_pixels)
    return _ask_pillow(data, verify == "decode", max_pixels)


def _too_large(width: int, height: int, max_pixels: int) -> str | None:
    if width * height <= max_pixels:
        return None
    return f"{width} x {height} pixels, more than {max_pixels}"


def _size_of_png(data: bytes) -> tuple[int, int] | None:
    """Read (width, height) from a header that is surely good; Pillow judges all others."""
    if not data.startswith(_PNG_START) or len(data) < 33:
        return None
    width, height, depth, kind, *_, crc = _PNG_HEADER.unpack_from(data, 16)
    known = depth in (1, 2, 4, 8, 16) and kind in (0, 2, 3, 4, 6)
    if not (width and height and known and crc == zlib.crc32(data[12:29])):
        return None
    return width, height


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    """Read (width, height) from the first frame header, some 10 times faster than Pillow can."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, last = 2, len(data) - 10
    while at <= last and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            bits, height, width, parts = _JPEG_SIZE.unpack_from(data, at + 4)
            good = bits == 8 and height and width and parts in (1, 3, 4)
            return (width, height) if good else None
        if marker in _NO_SEGMENT:
            return None
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _ask_pillow(data: bytes, decode: bool, max_pixels: int) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is looked at here, and of odd EXIF
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                reason = _too_large(image.width, image.height, max_pixels)
                if reason is None and decode:
                    image.load()
                return reason
    except UnidentifiedImageError:
        return f"no image: {len(data)} bytes that start with {data[:8]!r}"
    except Image.DecompressionBombError as exc:
        return str(exc)
    except DAMAGE as exc:
        return f"damaged or cut short ({exc})"
