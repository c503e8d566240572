import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from yolo.boxes import Letterboxed, check_boxes, iou, letterbox, nms, square_pixels

from zoo.errors import InputError
from zoo.orca.data.image import ImagePipeline
from zoo.orca.data.image.transforms import Letterbox

SIZES = [(1920, 1080), (1080, 1920), (500, 500), (500, 375), (333, 77), (60, 400)]


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    low = draw.uniform(0, 0.8, (count, 2))
    return np.concatenate([low, low + draw.uniform(0.02, 1 - low)], axis=1)


def plain_iou(one: np.ndarray, other: np.ndarray, pixel: float = 0.0) -> float:
    """One pair, by the definition."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + pixel
    high = min(one[3], other[3]) - max(one[1], other[1]) + pixel
    shared = wide * high if wide > 0 and high > 0 else 0.0
    areas = [(b[2] - b[0] + pixel) * (b[3] - b[1] + pixel) for b in (one, other)]
    union = sum(areas) - shared
    return shared / union if union else 0.0


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_iou_is_that_of_each_pair(pixel: float) -> None:
    one, other = random_boxes(12) * 20, random_boxes(9, 1) * 20
    other[0], one[1, 2:] = one[0], one[1, :2]
    expected = [[plain_iou(a, b, pixel) for b in other] for a in one]
    np.testing.assert_allclose(iou(one, other, pixel), expected, rtol=1e-12, atol=1e-15)


def test_boxes_without_area_overlap_nothing() -> None:
    assert iou(np.zeros((1, 4)), np.zeros((2, 4))).tolist() == [[0, 0]]


def plain_nms(
    boxes: np.ndarray, scores: np.ndarray, numbers: np.ndarray, most_iou: float
) -> list[int]:
    left, kept = sorted(range(len(boxes)), key=lambda n: (-scores[n], n)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        doubles = [
            n
            for n in left
            if numbers[n] == numbers[best] and plain_iou(boxes[n], boxes[best]) > most_iou
        ]
        left = [n for n in left if n not in doubles]
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_nms_keeps_the_best_of_each_object(seed: int) -> None:
    draw = np.random.default_rng(seed)
    boxes = np.repeat(random_boxes(12, seed), 5, axis=0) + draw.normal(0, 0.03, (60, 4))
    scores, numbers = draw.integers(0, 20, 60) / 20, draw.integers(0, 3, 60)
    kept = nms(boxes, scores, numbers, 0.45).tolist()
    assert kept == plain_nms(boxes, scores, numbers, 0.45)
    assert 3 < len(kept) < 60


def test_nms_of_nothing() -> None:
    assert nms(np.zeros((0, 4)), np.zeros(0), np.zeros(0)).tolist() == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [128, 416])
def test_boxes_come_back_within_a_pixel(size: tuple[int, int], side: int) -> None:
    lies, boxes = Letterboxed(*size, side), random_boxes(50)
    moved = (lies.back(lies.forth(boxes)) - boxes) * np.array(size * 2)
    assert abs(moved).max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_boxes_move_as_the_pixels_do(size: tuple[int, int]) -> None:
    boxes = random_boxes(20)
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    _, moved = ImagePipeline(Letterbox(416)).with_boxes(buffer.getvalue(), boxes)
    np.testing.assert_allclose(moved, Letterboxed(*size, 416).forth(boxes), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_thing_that_is_seen_in_the_square_is_found_on_the_image(size: tuple[int, int]) -> None:
    there = np.round(np.array([0.25, 0.4, 0.75, 0.85]) * (size * 2))
    picture, buffer = Image.new("RGB", size), io.BytesIO()
    ImageDraw.Draw(picture).rectangle((there - [0, 0, 1, 1]).tolist(), fill="white")
    picture.save(buffer, "PNG")
    pixels, lies = letterbox(buffer.getvalue(), 416)
    assert pixels.shape == (416, 416, 3)
    assert (pixels == square_pixels(416)(buffer.getvalue())).all()
    rows, columns = np.nonzero(pixels[..., 0] > 0.5)
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) / 416
    # A pixel of the square, or of the image where those are larger.
    off = abs(lies.back(seen)[0] * (size * 2) - there)
    assert off.max() <= max(1.0, max(size) / 416) + 1e-6


@pytest.mark.parametrize(
    "row",
    [
        [0.5, 0.1, 0.4, 0.9, 0],
        [0.1, 0.9, 0.4, 0.2, 0],
        [0.1, 0.1, 0.1, 0.9, 0],
        [-0.1, 0.1, 0.4, 0.9, 0],
        [0.1, 0.1, 0.4, 1.1, 0],
        [0.1, 0.1, float("nan"), 0.9, 0],
        [0.1, 0.1, 0.4, 0.9, 3],
        [0.1, 0.1, 0.4, 0.9, 0.5],
        [0.1, 0.1, 0.4, 0.9, -1],
    ],
)
def test_bad_box_is_named_with_its_image(row: list[float]) -> None:
    good = [0.0, 0.0, 1.0, 1.0, 2]
    assert check_boxes([good], 3, "a.jpg").tolist() == [good]
    with pytest.raises(InputError, match=r"boxes with xmin < xmax .* received \[.*\(a.jpg\)"):
        check_boxes([good, row], 3, "a.jpg")


def test_no_boxes_are_good_boxes() -> None:
    assert check_boxes(np.zeros((0, 5)), 3, "a.jpg").shape == (0, 5)
    with pytest.raises(InputError, match=r"\(0,\) \(a.jpg\)"):
        check_boxes([], 3, "a.jpg")
