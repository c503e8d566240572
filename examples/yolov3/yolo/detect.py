"""From the network's outputs to the objects of an image."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from yolo.anchors import MASKS, check_anchors
from yolo.boxes import Letterboxed, nms, picture_size
from yolo.targets import decode
from zoo.orca.data.image import decode_ndarray

__all__ = ["LEAST_SCORE", "Candidates", "as_detector", "found_objects"]

LEAST_SCORE = 0.01
"""Of boxes that are looked at. To measure it is kept low: a high one cuts the end off the curve of
precision and recall."""


@keras.saving.register_keras_serializable("yolo")
class Candidates(keras.layers.Layer):
    """The best pairs of a box and a class: rows of corners, score and class, the best first.

    The score is the chance that there is an object times that it is of the class. Corners are
    relative to the square.

    Args:
        anchors: All nine of the network.
        most: How many pairs.
        **settings: Of Keras.
    """

    def __init__(self, anchors: Any, most: int = 100, **settings: Any) -> None:
        super().__init__(**settings)
        self.anchors, self.most = check_anchors(anchors), most

    def call(self, outputs: Any) -> Any:
        """Return (batch, most, 6) from the three outputs."""
        boxes, scores = [], []
        for output, mask in zip(outputs, MASKS, strict=True):
            boxes.append(decode(output, self.anchors, mask))
            chances = ops.sigmoid(output[..., 4:5]) * ops.sigmoid(output[..., 5:])
            scores.append(ops.reshape(chances, (-1, boxes[-1].shape[1], chances.shape[-1])))
        corners, chances = ops.concatenate(boxes, axis=1), ops.concatenate(scores, axis=1)
        classes, pairs = chances.shape[-1], chances.shape[1] * chances.shape[2]
        best, places = ops.top_k(ops.reshape(chances, (-1, pairs)), min(self.most, pairs))
        corners = ops.take_along_axis(corners, (places // classes)[..., None], axis=1)
        facts = ops.stack([best, ops.cast(places % classes, best.dtype)], axis=-1)
        return ops.concatenate([corners, facts], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What makes the same layer again."""
        return {**super().get_config(), "anchors": self.anchors.tolist(), "most": self.most}


def as_detector(model: keras.Model, anchors: Any, most: int = 100) -> keras.Model:
    """The network with weights as they are, which says boxes instead of what they are made from."""
    return keras.Model(model.input, Candidates(anchors, most)(model.outputs), name="detector")


def found_objects(
    shard: pd.DataFrame, side: int, threshold: float = LEAST_SCORE, most_iou: float = 0.45
) -> pd.DataFrame:
    """What is found on some images, and what is there, in pixels of the images.

    Args:
        shard: `image`, `label` and `image_id` as a dataset has them, and the `prediction` of a
            detector. `difficult` may be there, too.
        side: Of the detector's square.
        threshold: Boxes with a lower score are left out.
        most_iou: See `nms`.

    Returns:
        `image_id`, `image`, `found` (n, 6): corners, score, class; and `truth` (m, 6): corners,
        class, 1 where it is difficult.
    """
    rows = []
    for row in shard.itertuples():
        width, height = picture_size(row.image)
        pixels = np.array([width, height] * 2)
        candidates = np.stack(list(row.prediction)).astype(np.float64)
        candidates = candidates[candidates[:, 4] >= threshold]
        candidates[:, :4] = Letterboxed(width, height, side).back(candidates[:, :4]) * pixels
        kept = nms(candidates[:, :4], candidates[:, 4], candidates[:, 5], most_iou)
        label = decode_ndarray(row.label).astype(np.float64)
        marks = decode_ndarray(row.difficult) if "difficult" in shard else np.zeros(len(label))
        truth = np.column_stack([label[:, :4] * pixels, label[:, 4], marks])
        rows.append((row.image_id, row.image, candidates[kept], truth))
    return pd.DataFrame(rows, columns=["image_id", "image", "found", "truth"])
