import dataclasses
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image import transforms
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.step import PictureStep
from zoo.orca.data.image.transforms import (
    CenterCrop,
    ColorJitter,
    Crop,
    Grayscale,
    Letterbox,
    Normalize,
    Pad,
    RandomApply,
    RandomCrop,
    RandomExpand,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    ResizeShorter,
    ToCHW,
    ToHWC,
)

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))

GEOMETRY = [
    Resize(80, 120),
    Resize(40, 30, resample="nearest"),
    ResizeShorter(80),
    ResizeShorter(80, longest=60),
    Letterbox(120),
    Letterbox(40, 120, fill=0),
    CenterCrop(30, 50),
    CenterCrop(100),
    Crop(0.1, 0.1, 0.9, 1.0),
    RandomCrop(36, 50),
    RandomCrop(40, 60, padding=8),
    RandomCrop(90, 50, fill=(0, 0, 9)),
    RandomResizedCrop(48, scale=(0.5, 1.0), resample="nearest"),
    Pad(4, 3, 2, 1),
    RandomExpand(3.0, probability=1.0),
    RandomFlip(1.0),
    RandomFlip(1.0, "vertical"),
    RandomApply(Pad(5, 5), 1.0),
]


def rectangle(*corners: int) -> tuple[Image.Image, Boxes]:
    """A white rectangle in a black picture, and its box."""
    left, top, right, bottom = corners
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels), Boxes.of([[left / 60, top / 40, right / 60, bottom / 40]])


def edges(image: Image.Image) -> list[int]:
    """Where the rectangle is now: its first and last pixels."""
    white = np.asarray(image.convert("RGB")).min(axis=2) > 127
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("corners", [(20, 12, 36, 28), (8, 4, 20, 30), (40, 30, 58, 38)])
@pytest.mark.parametrize("step", GEOMETRY, ids=repr)
def test_box_is_where_the_rectangle_is(step: PictureStep, corners: tuple[int, ...]) -> None:
    image, boxes = rectangle(*corners)
    for seed in range(5):
        moved, found = step.apply(image, boxes, np.random.default_rng(seed))
        assert found is not None
        if not found.visible[0]:
            continue
        box = found.rows()[0] * np.array([moved.width, moved.height] * 2)
        # Where an edge falls within a pixel, the pixel is white or black as a whole.
        np.testing.assert_allclose(box, edges(moved), atol=0.75)


@pytest.mark.parametrize("step", [CenterCrop(30, 50), RandomCrop(36, 50, padding=2), Pad(4, 3)])
def test_box_is_exact_where_pixels_only_move(step: PictureStep) -> None:
    image, boxes = rectangle(20, 12, 36, 28)
    moved, found = step.apply(image, boxes, np.random.default_rng(1))
    assert found is not None
    box = found.rows()[0] * np.array([moved.width, moved.height] * 2)
    np.testing.assert_allclose(box, edges(moved), atol=1e-4)


def test_turned_box_holds_the_turned_rectangle() -> None:
    image, boxes = rectangle(20, 12, 36, 28)
    for seed in range(10):
        turned, found = RandomRotation(40).apply(image, boxes, np.random.default_rng(seed))
        assert found is not None
        box = found.rows()[0] * np.array([60, 40] * 2)
        np.testing.assert_allclose(box, edges(turned), atol=1.5)


@pytest.mark.parametrize("step", GEOMETRY, ids=repr)
def test_size_that_is_foretold(step: PictureStep) -> None:
    moved, _ = step.apply(NOISE, None, np.random.default_rng(0))
    assert step.size_after(NOISE.size) in (moved.size, None)
    assert step.size_after(None) in (moved.size, None)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    "step", [*GEOMETRY, ColorJitter(0.5, 0.5, 0.5, 0.5), Grayscale()], ids=repr
)
def test_step_keeps_the_mode_and_the_picture_it_got(step: PictureStep, mode: str) -> None:
    if getattr(step, "fill", 0) == (0, 0, 9) and mode != "RGB":
        pytest.skip("its fill is for RGB only, which the pipeline checks")
    image = NOISE.convert(mode)
    before = image.tobytes()
    moved, _ = step.apply(image, None, np.random.default_rng(0))
    assert moved.mode == mode
    assert image.tobytes() == before


def test_same_generator_same_result() -> None:
    for step in [*GEOMETRY, ColorJitter(0.5, 0.5, 0.5, 0.5), RandomRotation(30)]:
        one, two = (step.apply(NOISE, None, np.random.default_rng(3))[0] for _ in range(2))
        assert one.tobytes() == two.tobytes()


def test_resize_is_pillows() -> None:
    resized, _ = Resize(20, 30, "bicubic").apply(NOISE, None)
    expected = NOISE.resize((30, 20), Image.Resampling.BICUBIC, reducing_gap=2.0)
    assert resized.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("step", "size"),
    [
        (ResizeShorter(20), (30, 20)),
        (ResizeShorter(80), (120, 80)),
        (ResizeShorter(80, longest=90), (90, 60)),
    ],
)
def test_shorter_side_decides(step: ResizeShorter, size: tuple[int, int]) -> None:
    assert step.apply(NOISE, None)[0].size == size


def test_letterbox_shows_the_whole_picture_between_bars() -> None:
    boxed, _ = Letterbox(60, fill=7).apply(NOISE, None)
    pixels = np.asarray(boxed)
    assert pixels.shape == (60, 60, 3)
    assert (pixels[:10] == 7).all()
    assert (pixels[50:] == 7).all()
    np.testing.assert_array_equal(pixels[10:50], np.asarray(NOISE))


def test_center_crop_takes_the_middle() -> None:
    cut, _ = CenterCrop(20, 30).apply(NOISE, None)
    np.testing.assert_array_equal(np.asarray(cut), np.asarray(NOISE)[10:30, 15:45])


def test_crop_that_is_too_large_is_padded() -> None:
    cut, _ = CenterCrop(60, fill=9).apply(NOISE, None)
    np.testing.assert_array_equal(np.asarray(cut)[10:50], np.asarray(NOISE))
    assert (np.asarray(cut)[:10] == 9).all()


def test_random_crop_reaches_everywhere() -> None:
    step = RandomCrop(39, 59)
    seen = {step.apply(NOISE, None, np.random.default_rng(n))[0].tobytes() for n in range(40)}
    assert len(seen) == 4


def test_random_resized_crop_keeps_within_scale_and_ratio() -> None:
    step = RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.8, 1.25))
    for seed in range(200):
        left, top, width, height = step._part((600, 400), np.random.default_rng(seed))
        assert 0.19 < width * height / 240_000 < 0.51
        assert 0.79 < width / height < 1.26
        assert 0 <= left <= 600 - width
        assert 0 <= top <= 400 - height


@pytest.mark.parametrize("size", [(1, 1), (1000, 1), (1, 1000), (2, 900)])
def test_random_resized_crop_of_odd_pictures(size: tuple[int, int]) -> None:
    cut, _ = RandomResizedCrop(5, 7).apply(Image.new("RGB", size), None, RNG)
    assert cut.size == (7, 5)


def test_flip_happens_as_often_as_asked() -> None:
    before = NOISE.tobytes()
    rng = np.random.default_rng(0)
    flipped = sum(
        RandomFlip(0.3).apply(NOISE, None, rng)[0].tobytes() != before for _ in range(500)
    )
    assert 110 < flipped < 190


def test_expand_leaves_the_picture_whole() -> None:
    grown, boxes = RandomExpand(3.0, 1.0).apply(NOISE, Boxes.of([[0, 0, 1, 1]]), RNG)
    assert boxes is not None
    left, top, right, bottom = np.round(boxes.rows()[0] * (*grown.size, *grown.size)).astype(int)
    np.testing.assert_array_equal(
        np.asarray(grown)[top:bottom, left:right], np.asarray(NOISE), strict=True
    )


def test_colours_change_within_their_range() -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    seen = [
        np.asarray(ColorJitter(0.2).apply(grey, None, np.random.default_rng(n))[0])[0, 0, 0]
        for n in range(50)
    ]
    assert 80 <= min(seen) < 90
    assert 110 < max(seen) <= 120


def test_hue_of_half_a_circle_swaps_colours() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    hues = {
        ColorJitter(hue=0.5).apply(red, None, np.random.default_rng(n))[0].getpixel((0, 0))
        for n in range(60)
    }
    assert len(hues) > 20
    assert all(max(hue) == 255 and min(hue) == 0 for hue in hues)  # type: ignore[arg-type,type-var]


def test_alpha_is_no_colour() -> None:
    image = NOISE.convert("RGBA")
    image.putalpha(77)
    for step in (ColorJitter(hue=0.4), Grayscale(), ColorJitter(0.3, 0.3, 0.3)):
        changed, _ = step.apply(image, None, np.random.default_rng(0))
        assert changed.getchannel("A").getextrema() == (77, 77)


def test_grayscale_keeps_three_equal_channels() -> None:
    pixels = np.asarray(Grayscale().apply(NOISE, None, RNG)[0])
    assert (pixels == pixels[:, :, :1]).all()


def test_apply_never_and_always() -> None:
    assert RandomApply(Pad(5), 0.0).apply(NOISE, None, RNG)[0] is NOISE
    assert RandomApply(Pad(5), 1.0).apply(NOISE, None, RNG)[0].width == 65


@pytest.mark.parametrize(
    ("step", "random"),
    [
        (Resize(2, 2), False),
        (RandomFlip(), True),
        (RandomFlip(1.0), False),
        (ColorJitter(), False),
        (ColorJitter(hue=0.1), True),
        (Grayscale(), False),
        (Grayscale(0.1), True),
        (RandomCrop(3), True),
        (RandomRotation(0), False),
        (RandomApply(Resize(2, 2), 1.0), False),
        (RandomApply(RandomCrop(2), 1.0), True),
        (RandomExpand(1.0), False),
    ],
    ids=repr,
)
def test_steps_know_whether_they_draw(step: PictureStep, random: bool) -> None:
    assert step.random is random


@pytest.mark.parametrize("scale", [None, 1 / 255, 2.0])
@pytest.mark.parametrize("step", [ToCHW, ToHWC])
def test_arrays_hold_the_pixels(step: type[ToCHW | ToHWC], scale: float | None) -> None:
    array, _ = step(scale).apply(NOISE, None)
    pixels = np.asarray(NOISE).astype(np.float64) * (1 if scale is None else scale)
    if step is ToCHW:
        pixels = pixels.transpose(2, 0, 1)
    assert array.dtype == (np.uint8 if scale is None else np.float32)
    np.testing.assert_allclose(array, pixels, rtol=1e-6)


def test_normalize_alone() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    out, _ = Normalize((1.0, 2.0), (4.0, 5.0)).apply(array, None)
    expected = (array - np.array([1.0, 2.0])[:, None, None]) / np.array([4.0, 5.0])[:, None, None]
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert array[0, 0, 1] == 1


BAD: list[Callable[[], object]] = [
    lambda: Resize(0, 5),
    lambda: Resize(5, 5.0),  # type: ignore[arg-type]
    lambda: Resize(True, 5),
    lambda: Resize(5, None),  # type: ignore[arg-type]
    lambda: Resize(5, 5, "cubic"),
    lambda: ResizeShorter(-1),
    lambda: Letterbox(5, fill=300),
    lambda: Letterbox(5, fill=()),
    lambda: CenterCrop("5"),  # type: ignore[arg-type]
    lambda: Crop(0.5, 0, 0.4, 1),
    lambda: Crop(0, 0, 1, float("nan")),
    lambda: RandomCrop(5, padding=-1),
    lambda: RandomResizedCrop(5, scale=(0.0, 1.0)),
    lambda: RandomResizedCrop(5, scale=(0.5, 1.5)),
    lambda: RandomResizedCrop(5, ratio=(2.0, 1.0)),
    lambda: RandomResizedCrop(5, ratio=(1.0,)),  # type: ignore[arg-type]
    lambda: Pad(-1),
    lambda: RandomExpand(0.5),
    lambda: RandomExpand(float("nan")),
    lambda: RandomFlip(1.5),
    lambda: RandomFlip("often"),  # type: ignore[arg-type]
    lambda: RandomResizedCrop(5, scale=0.5),  # type: ignore[arg-type]
    lambda: RandomRotation(None),  # type: ignore[arg-type]
    lambda: Letterbox(5, fill="red"),  # type: ignore[arg-type]
    lambda: Crop("0", 0, 1, 1),  # type: ignore[arg-type]
    lambda: ToCHW("1/255"),  # type: ignore[arg-type]
    lambda: Normalize([], []),
    lambda: Normalize(0.5, 0.5, "NCHW"),  # type: ignore[arg-type]
    lambda: RandomFlip(direction="left"),  # type: ignore[arg-type]
    lambda: RandomRotation(200),
    lambda: RandomRotation(10, resample="lanczos"),
    lambda: RandomApply(Resize),  # type: ignore[arg-type]
    lambda: ColorJitter(-0.1),
    lambda: ColorJitter(hue=0.6),
    lambda: Grayscale(float("nan")),
    lambda: ToCHW(0.0),
    lambda: Normalize(0.5, 0.0),
    lambda: Normalize((0.5, float("inf")), 1.0),
    lambda: Normalize("mean", 1.0),
]


@pytest.mark.parametrize("made", BAD)
def test_settings_out_of_range(made: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        made()


@pytest.mark.parametrize("step", [ResizeShorter(256), Pad(2**14, 2**14, 0, 0)])
def test_picture_that_would_fill_the_memory(step: PictureStep) -> None:
    with pytest.raises(InputError, match="no larger than"):
        step.apply(Image.new("L", (1, 60_000)), None, RNG)


def test_steps_are_values() -> None:
    for step in [*GEOMETRY, Normalize([0.5], [0.5]), ToCHW()]:
        assert dataclasses.is_dataclass(step)
        assert pickle.loads(pickle.dumps(step)) == step
        assert hash(step) == hash(pickle.loads(pickle.dumps(step)))


def test_names_are_those_of_the_table() -> None:
    steps = [name for name in transforms.__all__ if name not in ("ArrayStep", "PictureStep")]
    assert not [name for name in steps if f"`{name}`" not in str(transforms.__doc__)]


def test_step_that_is_always_done_stays_in_evaluation() -> None:
    always, sometimes = (RandomApply(RandomCrop(24), probability) for probability in (1.0, 0.5))
    assert always.without_chance() == (CenterCrop(24),)
    assert sometimes.without_chance() == ()
    assert (always.size_after(None), sometimes.size_after(None)) == ((24, 24), None)
