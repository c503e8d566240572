import numpy as np
import pytest
from yolo.voc_map import mean_average_precision

from zoo.errors import InputError


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Pixels that both have, of all that one has: counted as VOC does, first and last included."""
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return wide * high / (areas[0] + areas[1] - wide * high)


def plain_precision(
    found: list[np.ndarray], truth: list[np.ndarray], number: int, at_iou: float, rule: str
) -> float:
    """The kit's way: one list of all boxes by score, a flag for each object."""
    boxes = [
        (box[4], image, box) for image, one in enumerate(found) for box in one if box[5] == number
    ]
    boxes.sort(key=lambda entry: -entry[0])
    real = [[row for row in one if row[4] == number] for one in truth]
    used = [[False] * len(one) for one in real]
    count = sum(row[5] == 0 for one in real for row in one)
    right = wrong = 0
    curve = []
    for _, image, box in boxes:
        fits = [overlap(box, row) for row in real[image]]
        best = max(range(len(fits)), key=fits.__getitem__, default=None)
        if best is not None and fits[best] >= at_iou:
            if real[image][best][5]:
                continue
            right, wrong = (right, wrong + 1) if used[image][best] else (right + 1, wrong)
            used[image][best] = True
        else:
            wrong += 1
        curve.append((right / count, right / (right + wrong)))
    if rule == "11-point":
        return sum(max((p for r, p in curve if r >= k / 10), default=0) for k in range(11)) / 11
    area, last = 0.0, 0.0
    for place, (r, _) in enumerate(curve):
        area += (r - last) * max(p for _, p in curve[place:])
        last = r
    return area


def images(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Twenty images: objects, near misses, doubles, wrong classes, images with neither."""
    draw = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(20):
        count = draw.integers(0, 6)
        low = draw.integers(0, 150, (count, 2))
        rows = np.column_stack([low, low + draw.integers(5, 60, (count, 2))]).astype(float)
        numbers = draw.integers(0, 3, count)
        truth.append(np.column_stack([rows, numbers, draw.random(count) < 0.2]))
        seen = np.repeat(rows, draw.integers(0, 3, count), axis=0)
        kinds = (
            np.repeat(numbers, 1)[: len(seen)]
            if len(seen) <= count
            else draw.integers(0, 3, len(seen))
        )
        seen = seen + draw.normal(0, 4, seen.shape)
        scores = np.round(draw.random(len(seen)), 3)
        found.append(np.column_stack([seen, scores, kinds]).reshape(-1, 6))
    return found, truth


@pytest.mark.parametrize("rule", ["all-point", "11-point"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at_iou", [0.5, 0.75])
def test_precision_is_that_of_the_kit(rule: str, seed: int, at_iou: float) -> None:
    found, truth = images(seed)
    measured = mean_average_precision(found, truth, rule=rule, at_iou=at_iou)
    numbers = {int(n) for one in truth for n in one[one[:, 5] == 0, 4]}
    expected = {n: plain_precision(found, truth, n, at_iou, rule) for n in numbers}
    assert measured.by_class == pytest.approx(expected, abs=1e-9)
    assert measured.value == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    assert (measured.rule, measured.iou, measured.threshold) == (rule, at_iou, 0.0)


def coco_precision(
    found: list[np.ndarray], truth: list[np.ndarray], number: int, at_iou: float
) -> float:
    """COCO's way: each box takes the best object that is free, and counted ones come first."""
    marks, count = [], 0
    for boxes, rows in zip(found, truth, strict=True):
        free = sorted((row for row in rows if row[4] == number), key=lambda row: row[5])
        count += sum(row[5] == 0 for row in free)
        for box in sorted((b for b in boxes if b[5] == number), key=lambda b: -b[4]):
            least, taken = at_iou, None
            for place, row in enumerate(free):
                if taken is not None and free[taken][5] == 0 and row[5]:
                    break
                shared = overlap(box - [0, 0, 1, 1, 0, 0], row - [0, 0, 1, 1, 0, 0])
                if shared >= least:
                    least, taken = shared, place
            if taken is None:
                marks.append((box[4], 0))
            elif not free[taken][5]:
                marks.append((box[4], 1))
                del free[taken]
    right, curve = 0, []
    for place, (_, mark) in enumerate(sorted(marks, key=lambda entry: -entry[0]), 1):
        right += mark
        curve.append((right / count, right / place))
    return sum(max((p for r, p in curve if r >= k / 100), default=0) for k in range(101)) / 101


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at_iou", [0.5, 0.75])
def test_precision_is_that_of_coco(seed: int, at_iou: float) -> None:
    found, truth = images(seed)
    measured = mean_average_precision(found, truth, rule="coco", at_iou=at_iou, pixel=0.0)
    expected = {n: coco_precision(found, truth, n, at_iou) for n in measured.by_class}
    assert measured.by_class == pytest.approx(expected, abs=1e-9)


BOX, FAR = [10, 10, 29, 29], [100, 100, 119, 119]


def one_image(found: list[list[float]], truth: list[list[float]], **options: object) -> float:
    arrays = np.array(found, float).reshape(-1, 6), np.array(truth, float).reshape(-1, 6)
    return mean_average_precision([arrays[0]], [arrays[1]], **options).value


def test_cases_that_can_be_told_by_hand() -> None:
    there = [[*BOX, 0, 0], [*FAR, 0, 0]]
    assert one_image([[*BOX, 0.9, 0], [*FAR, 0.8, 0]], there) == 1
    assert one_image([[*BOX, 0.9, 0]], there) == 0.5
    assert one_image([[*BOX, 0.9, 0]], there, rule="11-point") == pytest.approx(6 / 11)
    # A false box that scores least costs nothing; one that scores most costs a half of the first.
    assert one_image([[*BOX, 0.9, 0], [0, 0, 5, 5, 0.1, 0]], there[:1]) == 1
    assert one_image([[*BOX, 0.1, 0], [0, 0, 5, 5, 0.9, 0]], there[:1]) == 0.5
    # The second box on an object is false, and one on a difficult object is neither.
    assert one_image([[*BOX, 0.9, 0], [*BOX, 0.8, 0], [*FAR, 0.7, 0]], there) == pytest.approx(
        5 / 6
    )
    hard = [[*BOX, 0, 1], [*FAR, 0, 0]]
    assert one_image([[*BOX, 0.9, 0], [*BOX, 0.8, 0], [*FAR, 0.7, 0]], hard) == 1
    assert one_image([], there) == 0
    assert np.isnan(one_image([[*BOX, 0.9, 0]], []))


def test_corners_are_pixels_of_the_box() -> None:
    """Ten pixels wide and ten high: five of its columns are half of it, as the kit counts."""
    there, seen = [[0, 0, 9, 9, 0, 0]], [[0, 0, 4, 9, 0.9, 0]]
    assert one_image(seen, there) == 1
    assert one_image(seen, there, pixel=0.0) == 0


def test_a_high_threshold_lowers_the_value_and_is_told() -> None:
    found, truth = images(1)
    low, high = (mean_average_precision(found, truth, threshold=t) for t in (0.0, 0.6))
    assert high.value < low.value
    assert str(high).endswith("(all-point, IoU 0.5, scores from 0.6)")


def test_wrong_calls() -> None:
    with pytest.raises(InputError, match="a rule of"):
        mean_average_precision([], [], rule="12-point")
    with pytest.raises(InputError, match="as many images"):
        mean_average_precision([np.zeros((0, 6))], [])
