import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_file import file_of
from zoo.errors import InputError
from zoo.orca.data.image import ImageDecoder, ImagePipeline


def huge_png(width: int, height: int) -> bytes:
    """A few bytes whose header promises many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def test_default_is_float_channels_first() -> None:
    array = ImageDecoder()(file_of(PIXELS))
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, PIXELS.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_without_a_scale_the_bytes_stay() -> None:
    array = ImageDecoder(layout="HWC", scale=None)(file_of(PIXELS))
    np.testing.assert_array_equal(array, PIXELS, strict=True)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("scale", [None, 1 / 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_shape_and_dtype_are_known_before(mode: str, layout: str, scale: float | None) -> None:
    decoder = ImageDecoder(mode, (4, 5), layout, scale)  # type: ignore[arg-type]
    array = decoder(file_of(PIXELS))
    assert (array.shape, array.dtype) == (decoder.shape, decoder.dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_shape_is_unknown_without_a_size() -> None:
    assert ImageDecoder().shape is None


def test_grey_picture_becomes_three_equal_channels() -> None:
    array = ImageDecoder(scale=None)(file_of(PIXELS[:, :, 0]))
    np.testing.assert_array_equal(array, np.stack([PIXELS[:, :, 0]] * 3))


DEEP = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)


def deep_png(pixels: np.ndarray, kind: int) -> bytes:
    """A PNG file of 16 bits a channel, which Pillow reads and does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_files() -> dict[str, bytes]:
    """Files of 16 bits a channel, whose first pixel is 0 and whose last is all ones."""
    colours = np.repeat(DEEP[:, :, np.newaxis], 4, axis=2)
    return {
        "grey PNG": file_of(DEEP),
        "RGB PNG": deep_png(colours[:, :, :3], 2),
        "RGBA PNG": deep_png(colours, 6),
        "grey TIFF": file_of(DEEP, "TIFF"),
        "PGM": b"P5 3 1 65535\n" + DEEP.astype(">u2").tobytes(),
        "PPM": b"P6 3 1 65535\n" + colours[:, :, :3].astype(">u2").tobytes(),
    }


@pytest.mark.parametrize("data", deep_files().values(), ids=deep_files())
@pytest.mark.parametrize("decode", [ImageDecoder(), ImageDecoder("L"), ImagePipeline()])
def test_sixteen_bits_are_refused_unless_asked_otherwise(decode: Any, data: bytes) -> None:
    with pytest.raises(InputError, match="8 bits a channel .*received one of 16 bits.*deep="):
        decode(data)


@pytest.mark.parametrize("data", deep_files().values(), ids=deep_files())
def test_sixteen_bits_are_scaled_when_asked(data: bytes) -> None:
    array = ImageDecoder(mode="L", scale=None, deep="scale")(data)
    assert array.tolist() == [[[0, 0x12, 0xFF]]]
    assert ImagePipeline(mode="L", deep="scale")(data).ravel().tolist() == [0, 0x12, 0xFF]


@pytest.mark.parametrize("deep", ["refuse", "scale"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pictures_without_a_range_are_refused(dtype: str, deep: Any) -> None:
    data = file_of(np.array([[0, 1, 100_000]], dtype=dtype), "TIFF")
    with pytest.raises(InputError, match='received one of .*mode="F"'):
        ImageDecoder(mode="L", deep=deep)(data)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16", "uint8"])
def test_mode_f_keeps_every_value(dtype: str) -> None:
    pixels = np.arange(12).reshape(3, 4).astype(dtype) * (0.3 if dtype == "float32" else 20)
    decoder = ImageDecoder(mode="F", scale=None)
    array = decoder(file_of(pixels.astype(dtype), "TIFF"))
    np.testing.assert_array_equal(array[0], pixels.astype(np.float32))
    assert (array.dtype, array.shape) == (decoder.dtype, (1, 3, 4))


def test_mode_f_scales_and_resizes() -> None:
    array = ImageDecoder("F", (1, 3), scale=1 / 0xFFFF)(file_of(np.repeat(DEEP, 2, 0)))
    np.testing.assert_allclose(array, [[[0, 0x1234 / 0xFFFF, 1]]], rtol=1e-6)


def test_mode_f_refuses_what_floats_do_not_hold() -> None:
    with pytest.raises(InputError, match=r"2\*\*24"):
        ImageDecoder("F")(file_of(np.array([[2**24 + 1]], np.int32), "TIFF"))
    with pytest.raises(InputError, match="a grey image"):
        ImageDecoder("F")(deep_files()["RGB PNG"])


def test_sixteen_bits_for_all_channels_together_are_not_deep() -> None:
    header = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54)
    data = header + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0) + b"\xff\x7f\0\0"
    assert ImageDecoder(scale=None)(data).ravel().tolist() == [255, 255, 255]


def test_large_jpeg_shrinks_like_its_full_decode() -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (600, 1))] * 3, axis=2)
    data = file_of(pixels, "JPEG")
    small = ImageDecoder(size=(30, 40), layout="HWC", scale=None)(data)
    full = Image.open(io.BytesIO(data)).resize((40, 30), Image.Resampling.BILINEAR)
    assert np.abs(small.astype(int) - np.asarray(full)).max() <= 3


def test_decoder_survives_pickling() -> None:
    decoder = ImageDecoder(mode="L", size=(8, 8))
    assert pickle.loads(pickle.dumps(decoder)) == decoder


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_formats(kind: str, make_picture: Callable[..., bytes]) -> None:
    assert ImageDecoder()(make_picture(4, 5, kind=kind)).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("data", "received"),
    [(b"", "zero bytes"), (None, "NoneType"), ("a.png", "str"), (b"GIF or not", "b'GIF or")],
)
def test_what_is_no_image(data: bytes, received: str) -> None:
    with pytest.raises(InputError, match=received):
        ImageDecoder()(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_truncated_image(kind: str, make_picture: Callable[..., bytes]) -> None:
    data = make_picture(50, 50, kind=kind)
    with pytest.raises(InputError):
        ImageDecoder()(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on metadata it cannot read
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_damage_is_an_input_error_or_nothing(kind: str, make_picture: Callable[..., bytes]) -> None:
    rng = np.random.default_rng(7)
    whole = np.frombuffer(make_picture(12, 12, kind=kind), np.uint8)
    for _ in range(300):
        data = whole.copy()
        data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
        # Some damage goes unseen; what is seen must be no other type of error.
        with contextlib.suppress(InputError):
            assert ImageDecoder(max_pixels=10_000)(data.tobytes()).ndim == 3


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_bomb_is_refused_from_its_header(side: int) -> None:
    with pytest.raises(InputError, match="at most 67108864 pixels"):
        ImageDecoder()(huge_png(side, side))


def test_limit_of_pixels_can_be_moved(make_picture: Callable[..., bytes]) -> None:
    data = make_picture(10, 10)
    assert ImageDecoder(max_pixels=100)(data).shape == (3, 10, 10)
    with pytest.raises(InputError, match="10 x 10 pixels"):
        ImageDecoder(max_pixels=99)(data)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "P"},
        {"layout": "NCHW"},
        {"size": (8,)},
        {"size": (0, 8)},
        {"scale": 0},
        {"scale": "1/255"},
        {"scale": float("nan")},
        {"max_pixels": 0},
        {"deep": "keep"},
    ],
)
def test_settings_out_of_range(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        ImageDecoder(**settings)  # type: ignore[arg-type]


def test_decoder_loads_no_framework() -> None:
    program = (
        "import pickle, sys\n"
        "from zoo.orca.data.image.image_decoder import ImageDecoder\n"
        "print({'torch', 'tensorflow', 'ray'} & set(sys.modules), \n"
        "      'zoo.orca.data.image.parquet_dataset' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["set()", "False"]
