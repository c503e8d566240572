"""Anchors: the usual sizes of objects, from which boxes are predicted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from yolo.boxes import Array, Letterboxed, iou, picture_size
from zoo.errors import InputError
from zoo.orca.data.image import decode_ndarray

__all__ = [
    "ANCHORS",
    "MASKS",
    "box_sizes",
    "check_anchors",
    "cluster_sizes",
    "mean_iou",
    "size_iou",
]

ANCHORS = (
    np.array(
        [(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198),
         (373, 326)]
    )
    / 416
)  # fmt: skip
"""Width and height of the nine of the paper, found on COCO, as parts of the square's side."""
MASKS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))
"""Which anchors belong to the outputs for large, middle and small objects."""
_ROUNDS = 300


def check_anchors(anchors: npt.ArrayLike) -> Array:
    """Return nine anchors as an array.

    Raises:
        InputError: They are not nine sizes above 0 and up to 1, from small to large.
    """
    table = np.asarray(anchors, np.float64)
    good = table.shape == (9, 2) and bool(((table > 0) & (table <= 1)).all())
    if not good or (np.diff(table.prod(axis=1)) < 0).any():
        raise InputError(
            "nine anchors (width, height) as parts of the square's side, in order of their area",
            str(table.tolist()),
            "Divide pixels by the side, and sort by area.",
        )
    return table


def size_iou(sizes: Array, anchors: Array) -> Array:
    """Intersection over union (n, k) of boxes (n, 2) with anchors (k, 2) around one middle."""
    corners = [np.concatenate([np.zeros_like(one), one], axis=1) for one in (sizes, anchors)]
    return iou(*corners)


def mean_iou(sizes: Array, anchors: Array) -> float:
    """How well anchors fit: the mean over boxes of the overlap with the best one."""
    return float(size_iou(sizes, anchors).max(axis=1).mean())


def box_sizes(shard: pd.DataFrame, side: int) -> list[Array]:
    """Widths and heights (n, 2) of the boxes on each image, as parts of the square's side.

    Args:
        shard: `image` and `label` as a dataset has them.
        side: Of the square in pixels.
    """
    found = []
    for data, label in zip(shard["image"], shard["label"], strict=True):
        lies = Letterboxed(*picture_size(data), side)
        boxes = lies.forth(decode_ndarray(label)[:, :4].astype(np.float64))
        found.append(boxes[:, 2:] - boxes[:, :2])
    return found


def cluster_sizes(sizes: npt.ArrayLike, count: int = 9, *, seed: int = 0, tries: int = 10) -> Array:
    """Find anchors by k-means, where the distance of two sizes is 1 - IoU (YOLO9000, section 2).

    The first of each try are drawn far from each other (k-means++); the try whose anchors fit best
    counts.

    Args:
        sizes: (n, 2) widths and heights as parts of the square's side.
        count: How many anchors.
        seed: Of what is drawn.
        tries: How often it begins anew.

    Returns:
        (count, 2), from small to large.

    Raises:
        InputError: A size is not above 0, or there are fewer different sizes than anchors.
    """
    table = np.asarray(sizes, np.float64).reshape(-1, 2)
    if not ((table > 0) & np.isfinite(table)).all() or len(np.unique(table, axis=0)) < count:
        raise InputError(
            f"at least {count} different sizes above 0", f"{len(table)} sizes", "Give more boxes."
        )
    draw = np.random.default_rng(seed)
    found = [_settled(table, _spread(table, count, draw)) for _ in range(tries)]
    best = max(found, key=lambda anchors: mean_iou(table, anchors))
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def _spread(sizes: Array, count: int, draw: np.random.Generator) -> Array:
    """Some of the sizes, each drawn with a chance that grows with its distance from the others."""
    chosen = sizes[[draw.integers(len(sizes))]]
    while len(chosen) < count:
        far = (1 - size_iou(sizes, chosen).max(axis=1)).clip(0) ** 2
        chosen = np.vstack([chosen, sizes[draw.choice(len(sizes), p=far / far.sum())]])
    return chosen


def _settled(sizes: Array, anchors: Array) -> Array:
    """Move each anchor to the mean of the sizes that are nearest to it, until none moves."""
    nearest = None
    for _ in range(_ROUNDS):
        before, nearest = nearest, size_iou(sizes, anchors).argmax(axis=1)
        if before is not None and (before == nearest).all():
            break
        taken = [sizes[nearest == k] for k in range(len(anchors))]
        # One that is nearest to none stays.
        anchors = np.array(
            [one.mean(axis=0) if len(one) else a for one, a in zip(taken, anchors, strict=True)]
        )
    return anchors
