import itertools

import numpy as np
import pytest
from yolo.anchors import ANCHORS, MASKS, check_anchors, cluster_sizes, mean_iou, size_iou

from zoo.errors import InputError


def plain_fit(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The mean overlap with the best anchor, by the definition."""
    best = []
    for w, h in sizes:
        shared = [min(w, a) * min(h, b) for a, b in anchors]
        best.append(max(s / (w * h + a * b - s) for s, (a, b) in zip(shared, anchors, strict=True)))
    return sum(best) / len(best)


def test_overlap_of_sizes() -> None:
    sizes = np.random.default_rng(0).uniform(0.01, 1, (40, 2))
    assert mean_iou(sizes, ANCHORS) == pytest.approx(plain_fit(sizes, ANCHORS), rel=1e-12)


def test_clusters_that_lie_apart_are_found() -> None:
    draw = np.random.default_rng(1)
    middles = np.array([[0.05, 0.08], [0.2, 0.1], [0.15, 0.5], [0.7, 0.6]])
    sizes = np.concatenate([m * draw.uniform(0.9, 1.1, (30, 2)) for m in middles])
    expected = np.array([sizes[30 * k : 30 * k + 30].mean(axis=0) for k in range(4)])
    expected = expected[np.argsort(expected.prod(axis=1))]
    np.testing.assert_allclose(cluster_sizes(sizes, 4), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_hardly_any_split_that_settles_is_better(seed: int) -> None:
    """Each split of nine boxes in two, whose means are nearest to their own boxes."""
    sizes = np.random.default_rng(seed).uniform(0.05, 1, (9, 2))
    fits = []
    for chosen in itertools.product([False, True], repeat=8):
        first = np.array([*chosen, True])
        if first.all():
            continue
        halves = np.array([sizes[first].mean(axis=0), sizes[~first].mean(axis=0)])
        own = [plain_fit(sizes[[k]], halves[: 1 if first[k] else 2][-1:]) for k in range(9)]
        if own == [plain_fit(sizes[[k]], halves) for k in range(9)]:
            fits.append(plain_fit(sizes, halves))
    found = plain_fit(sizes, cluster_sizes(sizes, 2, seed=seed))
    assert max(fits) + 1e-9 > found > 0.99 * max(fits)


def test_each_anchor_is_the_mean_of_its_boxes() -> None:
    sizes = np.random.default_rng(2).uniform(0.02, 0.9, (300, 2))
    found = cluster_sizes(sizes, 9, seed=5)
    nearest = size_iou(sizes, found).argmax(axis=1)
    means = [sizes[nearest == k].mean(axis=0) for k in range(9)]
    np.testing.assert_allclose(found, means, rtol=1e-12)
    assert (found == cluster_sizes(sizes, 9, seed=5)).all()
    assert check_anchors(found) is not None
    assert mean_iou(sizes, found) > mean_iou(sizes, ANCHORS)


@pytest.mark.parametrize("sizes", [[[0.1, 0.2]] * 9, [[0.1, 0.0]] * 20, [[0.1, np.nan]]])
def test_sizes_of_which_no_anchors_can_be_made(sizes: list[list[float]]) -> None:
    with pytest.raises(InputError, match="at least 3 different sizes"):
        cluster_sizes(sizes, 3)


@pytest.mark.parametrize(
    "anchors", [ANCHORS * 416, ANCHORS[::-1], ANCHORS[:6], ANCHORS * 0, ANCHORS * np.nan]
)
def test_anchors_of_wrong_scale_order_or_number(anchors: np.ndarray) -> None:
    with pytest.raises(InputError, match="nine anchors"):
        check_anchors(anchors)


def test_each_anchor_has_one_output() -> None:
    assert sorted(k for mask in MASKS for k in mask) == list(range(9))
    assert (check_anchors(ANCHORS) == ANCHORS).all()
