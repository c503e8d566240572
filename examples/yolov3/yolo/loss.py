"""The loss of one output of the network, as in the paper's section 2."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from yolo.anchors import check_anchors
from yolo.targets import assign, decode

__all__ = ["YoloLoss"]


@keras.saving.register_keras_serializable("yolo")
class YoloLoss(keras.losses.Loss):
    """What the boxes of one output are wrong by; a sum over boxes for each image.

    The value of a batch is the mean over its images, whatever they hold. An image's is the sum of:

    - x, y of the boxes that stand for objects: cross-entropy of their place in the cell; and w, h:
      half of the squared error. The gradient of both is what the paper says, wanted less found.
      Boxes of small objects count more, by 2 less their area.
    - an object or none: cross-entropy over all boxes, but those that stand for no object and
      overlap one by more than `ignore`.
    - the class of objects: cross-entropy of each class by itself.

    It takes objects (batch, most, 5): corners relative to the square and the class, padded with
    zeros; the same for each output, which takes those that its anchors fit best.

    Args:
        anchors: All nine of the network.
        mask: Which of them are this output's.
        classes: How many classes there are.
        ignore: See above.
        **settings: Of Keras: `name`, `reduction`, `dtype`.
    """

    def __init__(
        self, anchors: Any, mask: Any, classes: int, ignore: float = 0.5, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.anchors, self.mask = check_anchors(anchors), tuple(mask)
        self.classes, self.ignore = classes, ignore

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss (batch,) of objects (batch, most, 5) and an output of the network."""
        cells = y_pred.shape[1]
        boxes, numbers = y_true[..., :4], y_true[..., 4]
        flat = ops.reshape(y_pred, (-1, cells * cells * len(self.mask), 5 + self.classes))
        wanted = assign(boxes, self.anchors, self.mask, cells)
        at = ops.take_along_axis(flat, wanted.slot[..., None], axis=1)
        near = wanted.taken * wanted.scale
        place = near * ops.sum(_entropy(wanted.place, at[..., :2]), axis=-1)
        size = near * ops.sum(ops.square(at[..., 2:4] - wanted.size), axis=-1) / 2
        which = ops.one_hot(ops.cast(numbers, "int32"), self.classes, dtype=flat.dtype)
        kind = wanted.taken * ops.sum(_entropy(which, at[..., 5:]), axis=-1)
        found = wanted.taken * _entropy(1.0, at[..., 4])
        stands = ops.one_hot(wanted.slot, flat.shape[1], dtype=flat.dtype)
        stands = ops.max(stands * wanted.taken[..., None], axis=1)
        free = 1 - ops.maximum(stands, self._near_objects(boxes, y_pred))
        empty = ops.sum(free * _entropy(0.0, flat[..., 4]), axis=-1)
        return ops.sum(place + size + kind + found, axis=-1) + empty

    def _near_objects(self, boxes: Any, y_pred: Any) -> Any:
        """1 for boxes that overlap some object enough to be left alone."""
        found = ops.stop_gradient(decode(y_pred, self.anchors, self.mask))[:, :, None]
        boxes = boxes[:, None]
        low = ops.maximum(found[..., :2], boxes[..., :2])
        high = ops.minimum(found[..., 2:], boxes[..., 2:])
        shared = ops.prod(ops.maximum(high - low, 0.0), axis=-1)
        areas = _area(found) + _area(boxes)
        overlap = shared / ops.maximum(areas - shared, keras.config.epsilon())
        return ops.cast(ops.max(overlap, axis=-1) > self.ignore, y_pred.dtype)

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        mine = {"anchors": self.anchors.tolist(), "mask": list(self.mask)}
        return {**super().get_config(), **mine, "classes": self.classes, "ignore": self.ignore}


def _area(boxes: Any) -> Any:
    return ops.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _entropy(wanted: Any, logits: Any) -> Any:
    """Binary cross-entropy of logits, each by itself; exact for logits of any size."""
    return ops.softplus(logits) - wanted * logits
