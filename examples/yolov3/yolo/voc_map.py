"""Mean average precision as the development kit of Pascal VOC computes it, and as COCO's does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolo.boxes import Array, iou
from zoo.errors import InputError

__all__ = ["RULES", "MeanPrecision", "mean_average_precision"]

RULES = ("all-point", "11-point", "coco")
"""VOC 2010 and later: the area below the curve; VOC 2007: the mean of eleven places on it; COCO: of
101, and a box may find the best object that is still free."""

_PLACES = {"11-point": 11, "coco": 101}


@dataclass(frozen=True)
class MeanPrecision:
    """How good a detector is, and by which measure.

    Attributes:
        value: The mean over the classes that have objects.
        by_class: The average precision of each of these.
        rule: One of `RULES`.
        iou: From which overlap on an object counts as found.
        threshold: The lowest score that was taken.
    """

    value: float
    by_class: dict[int, float]
    rule: str
    iou: float
    threshold: float

    def __str__(self) -> str:
        return (
            f"mAP {self.value:.3f} ({self.rule}, IoU {self.iou:g}, scores from {self.threshold:g})"
        )


def mean_average_precision(
    found: Sequence[Array],
    truth: Sequence[Array],
    *,
    at_iou: float = 0.5,
    rule: str = "all-point",
    threshold: float = 0.0,
    pixel: float = 1.0,
) -> MeanPrecision:
    """Measure what was found on some images.

    The best-scored box of a class that overlaps an object enough finds it; others that overlap it
    most are false, as are those without an object. Boxes whose object is difficult count neither
    way, and difficult objects need not be found. A class without objects has no precision.

    The number of COCO's tool is the mean of ten calls with the rule "coco", `pixel=0` and at_iou
    from 0.5 to 0.95, for at most 100 boxes of a class on an image, where none is a crowd.

    Args:
        found: For each image (n, 6): corners, score, class.
        truth: For each image (m, 5) or (m, 6): corners, class, 1 where it is difficult.
        at_iou: The least overlap.
        rule: One of `RULES`.
        threshold: Lower scores are left out.
        pixel: 1 for corners that are pixels of the box, as VOC has them; 0 for places.

    Raises:
        InputError: The rule is unknown, or there are not as many images of both kinds.
    """
    if rule not in RULES:
        raise InputError(f"a rule of {RULES}", repr(rule), "Choose one of them.")
    if len(found) != len(truth):
        raise InputError("as many images", f"{len(found)} and {len(truth)}", "Pair them.")
    boxes = [one[one[:, 4] >= threshold] for one in found]
    there = [one if one.shape[1] > 5 else np.pad(one, ((0, 0), (0, 1))) for one in truth]
    numbers = sorted({int(n) for one in there for n in one[one[:, 5] == 0, 4]})
    by_class = {}
    for number in numbers:
        mine = [one[one[:, 5] == number] for one in boxes]
        real = [one[one[:, 4] == number] for one in there]
        hits = np.concatenate(
            [
                _judged(*pair, iou(*pair, pixel), at_iou, free=rule == "coco")
                for pair in zip(mine, real, strict=True)
            ]
        )
        scores = np.concatenate([one[:, 4] for one in mine])
        hits = hits[np.argsort(-scores, kind="stable")]
        count = sum(int((one[:, 5] == 0).sum()) for one in real)
        by_class[number] = _average(hits[~np.isnan(hits)], count, rule)
    value = float(np.mean(list(by_class.values()))) if by_class else float("nan")
    return MeanPrecision(value, by_class, rule, at_iou, threshold)


def _judged(found: Array, truth: Array, overlap: Array, at_iou: float, *, free: bool) -> Array:
    """1 for boxes of one class and image that find an object, 0 for false ones, NaN for neither.

    With `free` a box is for the best object that is not found yet, and for a difficult one where no
    other is left; otherwise for the best of all.
    """
    hits, hard = np.zeros(len(found)), truth[:, 5] > 0
    open_to = np.ones(len(truth), bool)
    for place in np.argsort(-found[:, 4], kind="stable"):
        fits = overlap[place] >= at_iou
        if free:
            fits &= open_to | hard
            fits &= ~hard | (not (fits & ~hard).any())
        if not fits.any():
            continue
        best = int(np.where(fits, overlap[place], -1).argmax())
        if hard[best]:
            hits[place] = np.nan
        elif open_to[best]:
            hits[place], open_to[best] = 1.0, False
    return hits


def _average(hits: Array, count: int, rule: str) -> float:
    """The average precision of boxes in the order of their scores, of `count` objects."""
    right = hits.cumsum()
    precision = right / np.arange(1, len(hits) + 1)
    recall = right / count
    # The best precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if rule in _PLACES:
        steps = _PLACES[rule] - 1
        reached = [envelope[recall >= k / steps] for k in range(steps + 1)]
        return float(sum(one[0] for one in reached if len(one)) / (steps + 1))
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
