import io
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.writing.verify import Screening, SizedImage, Verify, check_image

KINDS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
LEVELS: tuple[Verify, ...] = ("none", "header", "decode")


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A small file with a good header that says 60,000 x 60,000 pixels."""
    body = b"IHDR" + struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + saved("PNG")[33:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verify", LEVELS)
def test_good_images_of_every_format(kind: str, verify: Verify) -> None:
    assert check_image(saved(kind), verify) is None


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + bytes(500), "icc_profile": bytes(70_000)}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("PNG", "1", {}),
        ("PNG", "RGBA", {}),
    ],
)
def test_less_usual_images(kind: str, mode: str, options: dict[str, object]) -> None:
    assert check_image(saved(kind, mode, **options)) is None


@pytest.mark.parametrize("verify", LEVELS)
def test_zero_bytes(verify: Verify) -> None:
    assert check_image(b"", verify) == "zero bytes"


@pytest.mark.parametrize(
    "data", [b"text", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"%!PS-Adobe-3.0 EPSF"]
)
@pytest.mark.parametrize("verify", ["header", "decode"])
def test_bytes_of_another_kind(data: bytes, verify: Verify) -> None:
    assert "no image" in str(check_image(data, verify))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_cut_image_needs_decoding(kind: str) -> None:
    cut = saved(kind)[:-300]
    assert check_image(cut, "decode") is not None
    if kind != "TIFF":  # its directory lies at the end
        assert check_image(cut, "header") is None


@pytest.mark.parametrize("verify", ["header", "decode"])
def test_image_of_gigabytes_is_refused_from_its_header(verify: Verify) -> None:
    assert "pixels" in str(check_image(huge_png(), verify))


@pytest.mark.parametrize("kind", KINDS)
def test_most_pixels(kind: str) -> None:
    assert check_image(saved(kind), "header", 1200) is None
    assert check_image(saved(kind), "header", 1199) == "40 x 30 pixels, more than 1199"


def test_header_of_png_with_a_flipped_bit_is_bad() -> None:
    data = bytearray(saved("PNG"))
    data[17] ^= 1
    assert check_image(bytes(data)) is not None


@pytest.mark.parametrize("verify", ["header", "decode"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_damaged_files_are_judged_and_do_not_raise(kind: str, verify: Verify) -> None:
    good, chance = saved(kind), random.Random(0)
    for _ in range(40):
        data = bytearray(good[: chance.randrange(1, len(good) + 1)])
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        reason = check_image(bytes(data), verify)
        assert reason is None or reason


def test_header_agrees_with_pillow(make_picture: Callable[..., bytes]) -> None:
    for kind in ("JPEG", "PNG"):
        for height, width in ((1, 1), (7, 300), (301, 2)):
            data = make_picture(height, width, kind=kind)
            assert check_image(data, "header", height * width) is None
            assert check_image(data, "header", height * width - 1) is not None


@pytest.mark.parametrize("field", [{"on_error": "raise"}, {"verify": "all"}, {"verify": None}])
def test_other_words_are_refused(field: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(field))} '"):
        Screening(**field)  # type: ignore[arg-type]


def test_annotated_size_of_the_header_fits() -> None:
    for kind in KINDS:
        assert SizedImage("a", 40, 30).misfit(saved(kind)) is None


def test_annotated_size_of_another_image() -> None:
    error = SizedImage("a", 30, 40).misfit(saved("PNG"))
    assert "an annotation for the image's 40 x 30 pixels; received one for 30 x 40." in str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_annotated_size_of_a_turned_photograph(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    error = SizedImage("a", 30, 40).misfit(saved(kind, exif=exif.tobytes()))
    assert "EXIF orientation 6" in str(error)
    assert "Turn the boxes back" in str(error)
