"""Steps that change colours and leave every pixel where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageEnhance

from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.step import (
    Generator,
    Picture,
    SameSize,
    check_numbers,
    happens,
)

__all__ = ["ColorJitter", "Grayscale"]

_Enhancer = type[ImageEnhance.Brightness | ImageEnhance.Contrast | ImageEnhance.Color]
_ENHANCERS: dict[str, _Enhancer] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@dataclass(frozen=True)
class ColorJitter(SameSize):
    """Change brightness, contrast, saturation and hue at random, in random order.

    Saturation and hue leave grey pictures as they are.

    Args:
        brightness: 0.2 draws a factor between 0.8 and 1.2.
        contrast: The same.
        saturation: The same.
        hue: 0.1 turns the colour circle by up to a tenth, either way; 0.5 is the most.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, 0, 100, "brightness", "contrast", "saturation")
        check_numbers(self, 0, 0.5, "hue")

    @property
    def random(self) -> bool:
        """Whether anything may change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Change the colours."""
        changes: list[Callable[[Picture], Picture]] = []
        for name, enhancer in _ENHANCERS.items():
            if amount := getattr(self, name):
                factor = rng.uniform(max(0.0, 1 - amount), 1 + amount)
                changes.append(partial(_enhanced, enhancer, factor))
        if self.hue:
            changes.append(partial(_hue_turned, round(256 * rng.uniform(-self.hue, self.hue))))
        for at in rng.permutation(len(changes)):
            image = changes[at](image)
        return image, boxes


@dataclass(frozen=True)
class Grayscale(SameSize):
    """Take the colours away; the number of channels stays.

    Args:
        probability: How often it happens.
    """

    probability: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, 0, 1, "probability")

    @property
    def random(self) -> bool:
        """Whether chance decides."""
        return 0 < self.probability < 1

    def apply(
        self, image: Picture, boxes: Boxes | None, rng: Generator
    ) -> tuple[Picture, Boxes | None]:
        """Make every channel the grey value, or leave it."""
        if happens(self.probability, rng):
            image = _with_alpha_of(image, image.convert("L").convert(image.mode))
        return image, boxes


def _enhanced(enhancer: _Enhancer, factor: float, image: Picture) -> Picture:
    return enhancer(image).enhance(factor)


def _hue_turned(steps: int, image: Picture) -> Picture:
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return _with_alpha_of(image, turned.convert(image.mode))


def _with_alpha_of(image: Picture, changed: Picture) -> Picture:
    if image.mode == "RGBA":
        changed.putalpha(image.getchannel("A"))
    return changed
