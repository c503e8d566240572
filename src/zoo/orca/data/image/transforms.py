"""The usual steps of an `ImagePipeline`, by name.

| what | steps | boxes |
| --- | --- | --- |
| resize | `Resize`, `ResizeShorter`, `Letterbox` | move along |
| cut | `CenterCrop`, `Crop`, `RandomCrop`, `RandomResizedCrop` | move along |
| pad | `Pad`, `RandomExpand` | move along |
| flip, turn | `RandomFlip`, `RandomRotation` | move along |
| colour | `ColorJitter`, `Grayscale` | stay |
| to an array | `ToCHW`, `ToHWC`, then `Normalize` | stay |
| sometimes | `RandomApply` | as its step says |
| any function | itself, or `Apply` | see there |

Where a step takes `height` and `width`, one number alone is a square. A step of one's own derives
from `PictureStep` or `ArrayStep`.
"""

from __future__ import annotations

from zoo.orca.data.image.steps.apply import Apply
from zoo.orca.data.image.steps.arrays import Normalize, ToCHW, ToHWC
from zoo.orca.data.image.steps.colours import ColorJitter, Grayscale
from zoo.orca.data.image.steps.crops import (
    CenterCrop,
    Crop,
    Pad,
    RandomCrop,
    RandomExpand,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
)
from zoo.orca.data.image.steps.resizing import Letterbox, Resize, ResizeShorter
from zoo.orca.data.image.steps.step import ArrayStep, PictureStep, RandomApply

__all__ = [
    "Apply",
    "ArrayStep",
    "CenterCrop",
    "ColorJitter",
    "Crop",
    "Grayscale",
    "Letterbox",
    "Normalize",
    "Pad",
    "PictureStep",
    "RandomApply",
    "RandomCrop",
    "RandomExpand",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "ResizeShorter",
    "ToCHW",
    "ToHWC",
]
