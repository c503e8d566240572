"""A residual network of 18 layers, as the paper has it (He et al., 2015), in torch and Keras."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
CLASSES = 1000


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both added."""
        return torch.relu(self.path(x) + self.shortcut(x))


def resnet(config: Any = None) -> nn.Module:
    """The network in torch, with weights of the seed 0."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inputs = 64
    for outputs, stride in STAGES:
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)]
    return nn.Sequential(*layers, *head).eval()


def keras_resnet(size: int) -> Any:
    """The same layers in Keras, with channels last."""
    import keras
    from keras import layers

    def convolved(x: Any, width: int, kernel: int, stride: int) -> Any:
        x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    start = x = keras.Input((size, size, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(convolved(x, 64, 7, 2)))
    for width, stride in STAGES:
        for step in (stride, 1):
            y = convolved(layers.ReLU()(convolved(x, width, 3, step)), width, 3, 1)
            if step > 1 or x.shape[-1] != width:
                x = convolved(x, width, 1, step)
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(start, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
