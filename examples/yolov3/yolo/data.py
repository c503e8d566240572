"""Records of a dataset become what the network is trained on, anew in each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from yolo.boxes import check_boxes
from yolo.targets import padded
from zoo.orca.data.image import ImagePipeline
from zoo.orca.data.image.transforms import (
    ColorJitter,
    Letterbox,
    RandomApply,
    RandomExpand,
    RandomFlip,
    RandomResizedCrop,
    ToHWC,
)

__all__ = ["Examples", "augmentation"]


def augmentation(side: int, seed: int = 0) -> ImagePipeline:
    """Flip, scale up and down, and change colours by chance; the result is a square.

    Args:
        side: Of the square in pixels.
        seed: Of chance.
    """
    return ImagePipeline(
        RandomExpand(1.6, 0.4, fill=114),
        RandomApply(RandomResizedCrop(side, scale=(0.5, 1.0)), 0.5),
        RandomFlip(),
        ColorJitter(0.3, 0.3, 0.3, 0.02),
        Letterbox(side),
        ToHWC(),
        seed=seed,
        min_visible=0.3,
    )


@dataclass(frozen=True)
class Examples:
    """Makes of a record (image, objects) for each output; to be applied to a dataset of records.

    Args:
        pipeline: From the bytes of an image to a square array.
        classes: How many there are.
        most: Objects on an image.
        seed: Of chance; what is drawn for an image is another in each epoch.
    """

    pipeline: ImagePipeline
    classes: int
    most: int = 100
    seed: int = 0

    def __call__(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """Return (side, side, 3) images and three times the same objects (most, 5)."""
        keys = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True)
        made = tf.autograph.experimental.do_not_convert(self._example)
        return tf.data.Dataset.zip((records, keys)).map(made, tf.data.AUTOTUNE)

    def _example(self, record: dict[str, Any], key: Any) -> tuple[Any, tuple[Any, ...]]:
        given = [record["image"], record["label"], record["image_id"], key]
        image, objects = tf.numpy_function(self._made, given, [tf.float32, tf.float32])
        image = tf.ensure_shape(image, self.pipeline.shape)
        objects = tf.ensure_shape(objects, (self.most, 5))
        return image, (objects, objects, objects)

    def _made(self, data: bytes, label: Any, name: bytes, key: Any) -> tuple[Any, Any]:
        owner = name.decode()
        objects = check_boxes(label, self.classes, owner)
        image, objects = self.pipeline.with_boxes(data, objects, int(key))
        # What the steps leave of a box may be thinner than float32 can tell.
        solid = np.all(objects[:, :2] < objects[:, 2:4], axis=1)
        return image, padded(objects[solid], self.most, owner)
