import io
import pickle
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_file import DATA, PIXELS, file_of
from zoo.errors import InputError
from zoo.orca.data.image.pipeline import ImagePipeline, Key, RecordTransform
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.transforms import (
    ArrayStep,
    CenterCrop,
    ColorJitter,
    Letterbox,
    Normalize,
    PictureStep,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    ResizeShorter,
    ToCHW,
    ToHWC,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING = ImagePipeline(
    RandomResizedCrop(24), RandomFlip(), ColorJitter(0.2, 0.2), ToCHW(), Normalize(MEAN, STD)
)
EVALUATION = ImagePipeline(ResizeShorter(32), CenterCrop(24), ToCHW(), Normalize(MEAN, STD))


def smooth(height: int, width: int) -> Image.Image:
    small = np.random.default_rng(1).integers(60, 190, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def alike(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether pictures differ by no more than JPEG's losses."""
    return one.shape == two.shape and float(np.abs(one.astype(int) - two).mean()) < 2


# Decoding and the way to an array


def test_pipeline_without_steps_gives_the_pixels() -> None:
    np.testing.assert_array_equal(ImagePipeline()(DATA), PIXELS, strict=True)


def test_grey_pictures_have_one_channel() -> None:
    grey = ImagePipeline(Resize(64, 48), mode="L")(DATA)
    assert (grey.shape, grey.dtype) == ((64, 48, 1), np.uint8)


def test_evaluation_by_hand() -> None:
    image = Image.open(io.BytesIO(DATA)).resize((48, 32), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((12, 4, 36, 28)), np.float64) / 255
    expected = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(EVALUATION(DATA), expected, atol=2e-6)


def test_normalize_of_keras_layout() -> None:
    array = ImagePipeline(ToHWC(None), Normalize((1.0, 2.0, 3.0), 2.0))(DATA)
    np.testing.assert_allclose(array, (PIXELS - np.array([1.0, 2.0, 3.0])) / 2, rtol=1e-6)


def test_normalize_behind_another_step_knows_the_layout() -> None:
    once = ImagePipeline(ToHWC(), Normalize(0.0, 2.0), Normalize(MEAN, STD))(DATA)
    np.testing.assert_allclose(once, (PIXELS / 255 / 2 - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("pipeline", [ImagePipeline(), TRAINING, EVALUATION])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_array_is_contiguous_and_the_callers_own(pipeline: ImagePipeline, kind: str) -> None:
    array = pipeline(file_of(PIXELS, kind), key=1)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    again = pipeline(file_of(PIXELS, kind), key=1)
    again[...] = 0
    assert array.any()


@pytest.mark.parametrize(
    ("pipeline", "shape", "dtype"),
    [
        (TRAINING, (3, 24, 24), "float32"),
        (ImagePipeline(Resize(4, 5), ToHWC(None), mode="RGBA"), (4, 5, 4), "uint8"),
        (ImagePipeline(Resize(4, 5), mode="L"), (4, 5, 1), "uint8"),
        (ImagePipeline(RandomCrop(3, 4), RandomRotation(5)), (3, 4, 3), "uint8"),
        (ImagePipeline(Letterbox(9), ToCHW(None), Normalize(0, 1)), (3, 9, 9), "float32"),
        (ImagePipeline(ToCHW()), None, "float32"),
        (ImagePipeline(ResizeShorter(4), ToCHW()), None, "float32"),
    ],
)
def test_shape_and_dtype_are_known_before(
    pipeline: ImagePipeline, shape: tuple[int, ...] | None, dtype: str
) -> None:
    array = pipeline(DATA)
    assert pipeline.shape == shape
    assert array.shape == (shape or array.shape)
    assert array.dtype == pipeline.dtype == np.dtype(dtype)


KINDS: list[tuple[str, Image.Image]] = [
    ("PNG", Image.fromarray(PIXELS[:, :, 0])),
    ("PNG", Image.fromarray(PIXELS[:, :, 0]).convert("1")),
    ("PNG", Image.fromarray(PIXELS).convert("P")),
    ("PNG", Image.fromarray(PIXELS).convert("RGBA")),
    ("PNG", Image.fromarray(PIXELS).convert("LA")),
    ("PNG", Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)),
    ("JPEG", Image.fromarray(PIXELS).convert("CMYK")),
    ("TIFF", Image.fromarray(PIXELS).convert("CMYK")),
    ("TIFF", Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)),
    ("PPM", Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)),
]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(("kind", "image"), KINDS, ids=lambda one: str(getattr(one, "mode", one)))
def test_any_kind_of_picture(kind: str, image: Image.Image, mode: Any) -> None:
    array = ImagePipeline(mode=mode, deep="scale")(file_of(image, kind))
    assert array.shape == (40, 60, {"L": 1, "RGB": 3, "RGBA": 4}[mode])


@pytest.mark.parametrize(("kind", "image"), KINDS[-2:] + KINDS[5:6], ids=lambda one: str(one)[:4])
def test_sixteen_bits_become_eight(kind: str, image: Image.Image) -> None:
    pipeline = ImagePipeline(RandomFlip(), mode="L", deep="scale").for_evaluation()
    array = pipeline(file_of(image, kind))
    np.testing.assert_array_equal(array[:, :, 0], PIXELS[:, :, 0])


def test_transparent_palette_keeps_its_colours_without_a_warning() -> None:
    image = Image.fromarray(PIXELS // 64 * 64).quantize(64)
    data = file_of(image, transparency=bytes(range(0, 128, 2)))
    np.testing.assert_array_equal(ImagePipeline()(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "first", [Resize(30, 40), ResizeShorter(30), Letterbox(40), ResizeShorter(33, longest=41)]
)
def test_large_jpeg_shrinks_like_its_full_decode(first: PictureStep) -> None:
    image = smooth(603, 801)
    small = ImagePipeline(first)(file_of(image, "JPEG", quality=95))
    full = ImagePipeline(first)(file_of(image, "PNG"))
    assert alike(small, full)


# Orientation


def turned(orientation: int, image: Image.Image, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photograph_is_turned_upright(orientation: int) -> None:
    upright = smooth(40, 60)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = (
        upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
    )
    array = ImagePipeline(upright=True)(turned(orientation, stored))
    assert array.shape == (40, 60, 3)
    assert alike(array, np.asarray(upright))


def test_orientation_is_left_alone_unless_asked() -> None:
    assert ImagePipeline()(turned(6, smooth(40, 60))).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_of_other_formats(kind: str) -> None:
    assert ImagePipeline(upright=True)(turned(6, smooth(40, 60), kind)).shape == (60, 40, 3)


def test_turned_photograph_is_decoded_at_a_fraction_of_its_size() -> None:
    data = turned(6, smooth(400, 600).transpose(Image.Transpose.ROTATE_90))
    array = ImagePipeline(ResizeShorter(20), upright=True)(data)
    assert array.shape == (20, 30, 3)
    expected = np.asarray(smooth(400, 600).resize((30, 20), Image.Resampling.BILINEAR))
    assert alike(array, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on notes it cannot read
@pytest.mark.parametrize("number", [0, 9, 200])
def test_orientation_that_makes_no_sense(number: int) -> None:
    data = turned(number, smooth(40, 60))
    assert ImagePipeline(upright=True)(data).shape == (40, 60, 3)
    broken = data.replace(b"Exif\0\0II", b"Exif\0\0XX").replace(b"Exif\0\0MM", b"Exif\0\0XX")
    assert broken != data
    assert ImagePipeline(upright=True)(broken).shape == (40, 60, 3)


# Chance


def test_same_key_gives_the_same_array() -> None:
    arrays = [TRAINING(DATA, key=(0, 1, 2, 3)) for _ in range(3)]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    np.testing.assert_array_equal(arrays[0], arrays[2])


def test_other_keys_and_seeds_give_other_arrays() -> None:
    other = ImagePipeline(*TRAINING.steps, seed=1)
    keys: list[Key] = [1, (1, 2), (0, 1), (0, 0, 1)]
    arrays = [pipeline(DATA, key).tobytes() for pipeline in (TRAINING, other) for key in keys]
    assert len(set(arrays)) == len(arrays)


def test_without_a_key_every_call_draws() -> None:
    assert len({TRAINING(DATA).tobytes() for _ in range(5)}) == 5


def test_key_and_seed_do_not_touch_what_draws_nothing() -> None:
    np.testing.assert_array_equal(EVALUATION(DATA, key=1), EVALUATION(DATA))


def test_same_key_in_another_process() -> None:
    program = (
        "import pickle, sys, zlib\n"
        "pipeline, data = pickle.load(sys.stdin.buffer)\n"
        "print(zlib.crc32(pipeline(data, key=(3, 4)).tobytes()))\n"
        "print({'torch', 'tensorflow', 'pyspark'} & set(sys.modules))"
    )
    given = pickle.dumps((TRAINING, DATA))
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(zlib.crc32(TRAINING(DATA, (3, 4)))).encode(), b"set()"]


def test_threads_share_a_pipeline() -> None:
    keys = list(range(60))
    alone = [TRAINING(DATA, key).tobytes() for key in keys]
    with ThreadPoolExecutor(8) as pool:
        together = [array.tobytes() for array in pool.map(lambda key: TRAINING(DATA, key), keys)]
    assert together == alone


@pytest.mark.parametrize("key", [-1, (0, -1), (0.5,), ("a",), "ab"])
def test_key_that_is_none(key: Any) -> None:
    with pytest.raises(InputError, match="key of whole numbers"):
        TRAINING(DATA, key)


def test_live_follows_chance_unless_told() -> None:
    assert TRAINING.random
    assert TRAINING.live
    assert not EVALUATION.live
    assert ImagePipeline(live=True).live
    assert not ImagePipeline(RandomFlip(), live=False).live
    assert ImagePipeline(RandomFlip(), live=False).random


def test_pipelines_are_values() -> None:
    again = pickle.loads(pickle.dumps(TRAINING))
    assert again == TRAINING
    assert hash(again) == hash(TRAINING)
    assert again != ImagePipeline(*TRAINING.steps, seed=1)
    np.testing.assert_array_equal(again(DATA, key=1), TRAINING(DATA, key=1))
    with pytest.raises(AttributeError):
        TRAINING.seed = 3  # type: ignore[misc]


# Boxes


def test_boxes_move_along_and_keep_their_columns() -> None:
    array, boxes = ImagePipeline(RandomFlip(1.0)).with_boxes(DATA, [[0.0, 0.0, 0.25, 0.5, 7]])
    np.testing.assert_array_equal(array, PIXELS[:, ::-1])
    np.testing.assert_array_equal(boxes, np.array([[0.75, 0, 1, 0.5, 7]], np.float32), strict=True)


def test_boxes_get_the_draws_of_their_picture() -> None:
    array, _ = TRAINING.with_boxes(DATA, [[0, 0, 1, 1]], key=5)
    np.testing.assert_array_equal(array, TRAINING(DATA, key=5))


@pytest.mark.parametrize(("least", "kept"), [(0.0, 1), (0.2, 1), (0.3, 0)])
def test_cut_boxes_are_dropped(least: float, kept: int) -> None:
    pipeline = ImagePipeline(CenterCrop(40, 30), min_visible=least)
    assert len(pipeline.with_boxes(DATA, [[0, 0, 1 / 3, 1]])[1]) == kept


@pytest.mark.parametrize("seed", range(20))
def test_painted_object_is_found_in_its_box(seed: int) -> None:
    rng = random.Random(seed)
    left, top = rng.randrange(100), rng.randrange(80)
    width, height = rng.randrange(20, 60), rng.randrange(20, 40)
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[top : top + height, left : left + width] = 255
    box = [left / 160, top / 120, (left + width) / 160, (top + height) / 120]
    steps = [Letterbox(150, fill=0), RandomResizedCrop(100, scale=(0.4, 1)), RandomFlip()]
    pipeline = ImagePipeline(*steps, min_visible=0.5)
    array, boxes = pipeline.with_boxes(file_of(pixels), [box], key=seed)
    bright = array.min(axis=2) > 127
    if len(boxes):
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(boxes[0] * 100, found, atol=1)


# Steps of one's own


@dataclass(frozen=True)
class Invert(PictureStep):
    def apply(self, image: Any, boxes: Boxes | None, rng: Any) -> tuple[Any, Boxes | None]:
        return Image.eval(image, lambda level: 255 - level), boxes


@dataclass(frozen=True)
class Broken(ArrayStep):
    def apply(self, array: Any, boxes: Boxes | None, rng: Any) -> tuple[Any, Boxes | None]:
        return np.broadcast_to(array[::-1].astype(np.float64), array.shape), boxes


def test_steps_of_ones_own() -> None:
    pipeline = ImagePipeline(Resize(4, 4), Invert())
    assert pipeline.shape is None
    np.testing.assert_array_equal(ImagePipeline(Invert())(DATA), 255 - PIXELS)


def test_array_of_ones_own_step_is_made_writable() -> None:
    pipeline = ImagePipeline(ToHWC(), Broken())
    assert (pipeline.shape, pipeline.dtype) == (None, None)
    assert pipeline(DATA).flags.writeable


# Misuse


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((Normalize(0, 1),), r"ToCHW\(\) or ToHWC\(\) before Normalize"),
        ((Normalize(0, 1), ToCHW()), "before Normalize"),
        ((ToCHW(), Resize(3, 3)), "Move Resize to the front"),
        ((ToCHW(), ToHWC()), "Drop one"),
        ((Resize,), "Resize itself"),
        (("Resize",), "received str"),
        (([Resize(3, 3)],), "received list"),
        ((ToCHW(), Normalize((1, 2), 1)), "one number or 3"),
        ((CenterCrop(3, fill=(1, 2)),), "a fill of one number or 3"),
    ],
)
def test_steps_that_make_no_chain(steps: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ImagePipeline(*steps)


@pytest.mark.parametrize(
    "settings",
    [{"mode": "BGR"}, {"seed": -1}, {"seed": 0.5}, {"min_visible": 2}, {"max_pixels": 0}],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        ImagePipeline(**settings)


@pytest.mark.parametrize("data", [b"", None, "a.png", b"GIF or not", DATA[: len(DATA) // 2]])
def test_bad_images_are_input_errors(data: Any) -> None:
    with pytest.raises(InputError):
        EVALUATION(data)


def test_pixels_are_limited_by_the_header(make_picture: Callable[..., bytes]) -> None:
    with pytest.raises(InputError, match="at most 99 pixels"):
        ImagePipeline(max_pixels=99)(make_picture(10, 10))


def test_picture_needs_a_pipeline_of_pictures() -> None:
    image, boxes = ImagePipeline(Resize(4, 6)).picture(DATA, [[0, 0, 1, 1]])
    assert image.size == (6, 4)
    assert boxes is not None
    with pytest.raises(InputError, match="without ToCHW"):
        TRAINING.picture(DATA)


# Records


def test_record_gets_its_array_and_keeps_the_rest() -> None:
    record = {"image": DATA, "label": 3}
    result = RecordTransform(EVALUATION)(record)
    np.testing.assert_array_equal(result["image"], EVALUATION(DATA))
    assert result["label"] == 3
    assert record["image"] is DATA


def test_record_with_boxes() -> None:
    transform = RecordTransform(TRAINING, image="photo", boxes="label")
    record = {"photo": DATA, "label": np.array([[0, 0, 1, 1, 5]], np.float32)}
    result = transform(record, key=4)
    array, boxes = TRAINING.with_boxes(DATA, record["label"], 4)
    np.testing.assert_array_equal(result["photo"], array)
    np.testing.assert_array_equal(result["label"], boxes)
    assert transform.wants_bytes == ("photo",)


def test_record_transform_is_a_value() -> None:
    transform = RecordTransform(TRAINING, boxes="label")
    assert pickle.loads(pickle.dumps(transform)) == transform


def test_record_without_the_column() -> None:
    with pytest.raises(InputError, match="photo"):
        RecordTransform(EVALUATION, image="photo")({"image": DATA})
