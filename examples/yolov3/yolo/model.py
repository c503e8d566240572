"""The network: Darknet-53 and three heads, in Keras 3 on any backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError

__all__ = ["FewObjects", "YoloV3", "darknet53"]

_BLOCKS = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
_PER_SCALE = 3
# How far a running mean of a batch norm moves in a step: trainings here have few steps.
_MOMENTUM = 0.9
# The logit of an object that the network begins with: most of its thousands of boxes hold none, and
# the first hundreds of steps would go into learning that.
_RARE = -5.0


def YoloV3(  # noqa: N802 - the tutorial's name
    size: int = 416, *, classes: int = 80, width: float = 1.0
) -> keras.Model:
    """The network that is trained.

    Args:
        size: Side of the square images in pixels, a multiple of 32.
        classes: How many there are.
        width: What the number of channels is multiplied by; 1 is the paper's network.

    Returns:
        A model from images (size, size, 3), from 0 to 1, to three tensors (cells, cells, 3, 5 +
        classes) for large, middle and small objects. The last axis has x, y, w and h as in the
        paper, the logit of an object, and the logits of the classes.

    Raises:
        InputError: The size or the number of classes cannot be.
    """
    if size % 32 or size < 32:
        raise InputError("a size that is a multiple of 32", str(size), "Take 416, say.")
    if classes < 1:
        raise InputError("at least one class", str(classes), "Count the classes.")
    image = keras.Input((size, size, 3), name="image")
    small, middle, large = darknet53(image, width)
    outputs, below = [], None
    for filters, features in ((512, large), (256, middle), (128, small)):
        if below is not None:
            up = layers.UpSampling2D()(_conv(below, filters, 1, width))
            features = layers.Concatenate()([up, features])
        below = features
        for kernel in (1, 3, 1, 3, 1):
            below = _conv(below, filters * (1 if kernel == 1 else 2), kernel, width)
        outputs.append(_head(_conv(below, filters * 2, 3, width), classes))
    return keras.Model(image, outputs, name="yolov3")


def darknet53(image: keras.KerasTensor, width: float = 1.0) -> list[keras.KerasTensor]:
    """The backbone of 52 convolutions; the 53rd of its name is a classifier's, and not used here.

    Returns:
        Features at an eighth, a sixteenth and a thirty-second of the image's size.
    """
    features, found = _conv(image, 32, 3, width), []
    for filters, blocks in _BLOCKS:
        features = _conv(features, filters, 3, width, strides=2)
        for _ in range(blocks):
            inner = _conv(_conv(features, filters // 2, 1, width), filters, 3, width)
            features = layers.Add()([features, inner])
        found.append(features)
    return found[-3:]


def _conv(
    features: keras.KerasTensor, filters: int, kernel: int, width: float, strides: int = 1
) -> keras.KerasTensor:
    """A convolution with a batch norm and a leaky rectifier."""
    if strides > 1:
        # As Darknet pads; "same" would pad at the other side.
        features = layers.ZeroPadding2D(((1, 0), (1, 0)))(features)
    features = layers.Conv2D(
        max(1, round(filters * width)),
        kernel,
        strides,
        "valid" if strides > 1 else "same",
        use_bias=False,
    )(features)
    features = layers.BatchNormalization(momentum=_MOMENTUM)(features)
    return layers.LeakyReLU(negative_slope=0.1)(features)


def _head(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The last convolution of a scale; what it says of three boxes in each cell."""
    cells, values = features.shape[1], 5 + classes
    features = layers.Conv2D(_PER_SCALE * values, 1, bias_initializer=FewObjects(values))(features)
    return layers.Reshape((cells, cells, _PER_SCALE, values))(features)


@keras.saving.register_keras_serializable("yolo")
class FewObjects(keras.initializers.Initializer):
    """Zeros, but for the logit of an object.

    Args:
        values: What is said of a box.
    """

    def __init__(self, values: int) -> None:
        self.values = values

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        """Return the bias."""
        bias = np.zeros((shape[0] // self.values, self.values))
        bias[:, 4] = _RARE
        return keras.ops.convert_to_tensor(bias.reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """What makes the same again."""
        return {"values": self.values}
