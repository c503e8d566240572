"""A step that is any function: of the user, of torchvision, of albumentations."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.steps.arrays import Layout
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.chance import seeded
from zoo.orca.data.image.steps.forms import as_array, is_tensor
from zoo.orca.data.image.steps.step import Generator, Step
from zoo.orca.data.image.steps.transform_libraries import (
    albumented,
    chained,
    is_albumentations,
    is_torchvision,
    may_draw,
    torchvisioned,
)

__all__ = ["Apply", "as_steps"]

_log = logging.getLogger(__name__)

# How often a trial calls what may draw.
_SEEDS = 16


class _Found(NamedTuple):
    """What a trial says of a function; without one, anything may be.

    Attributes:
        draws: Whether it drew.
        changes: Whether what it gives has another size or type than what it gets.
        unpacks: Whether it makes an array of a picture, of the same pixels otherwise.
    """

    draws: bool = True
    changes: bool = True
    unpacks: bool = False


class _Made(NamedTuple):
    """What came of a call."""

    image: Any
    boxes: Boxes | None
    drew: bool


@dataclass(frozen=True)
class Apply(Step):
    """Call a function with the image, in the form in which the step before leaves it.

    A function among the steps of a pipeline is this step. At first the image is a Pillow picture,
    and behind `ToCHW` or `ToHWC` an array. The function returns a picture, an array (height, width,
    channel) or a tensor (channel, height, width). Transforms of albumentations get an array, and
    those of torchvision a picture or a tensor.

    Whatever it draws follows from the key of the call: from `random`, `numpy.random` and torch, or
    from the generator of NumPy that it gets as `rng` if it has such an argument.

    Args:
        function: The function, or a transform of torchvision or albumentations.
        draws: Whether it draws. None finds out with two pictures of noise, when the pipeline is
            made. False promises that it does not: then it is called by several threads at a time.
        evaluation: What takes its place when a model is evaluated. None is the function itself if
            it does not draw, and nothing if it draws and keeps the form of the image. What draws
            and changes it stays, with the same draws for every image, and a warning.
        keeps_boxes: The function moves nothing, so that boxes stay. Otherwise images with boxes are
            refused; transforms of albumentations and of torchvision (v2) move boxes themselves.

    Raises:
        InputError: The function is none.
    """

    function: Callable[..., Any]
    draws: bool | None = None
    evaluation: Callable[..., Any] | Step | None = None
    keeps_boxes: bool = False
    _found: _Found | None = field(default=None, repr=False, compare=False)
    _layout: Layout = field(default="HWC", repr=False, compare=False)
    _min_visible: float = field(default=0.0, repr=False, compare=False)
    _frozen: bool = field(default=False, repr=False)
    _takes_rng: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        instead = self.evaluation
        for value in (self.function, *([] if isinstance(instead, Step | None) else [instead])):
            if isinstance(value, type) or not callable(value):
                raise InputError(
                    "Apply of something that can be called with an image",
                    repr(value),
                    "Give a function, or a transform that was made from its class.",
                )
        object.__setattr__(self, "_takes_rng", _takes_rng(self.function))

    @property
    def random(self) -> bool:
        """Whether it draws, as far as is known; what is not known may."""
        if self._frozen:
            return False
        if self.draws is not None:
            return self.draws
        return (self._found or _Found()).draws

    def without_chance(self) -> tuple[Step, ...]:
        """What takes the step's place when a model is evaluated; see `evaluation`."""
        if self.evaluation is not None:
            return as_steps([self.evaluation])
        if not self.random:
            return (self,)
        found = self._found or _Found()
        if not found.changes:
            # The next function counts on an array.
            return (Apply(np.array, draws=False),) if found.unpacks else ()
        _log.warning(
            "%r draws, and changes the size or the type of the image: without chance it draws the "
            "same for every image. Say what takes its place: Apply(..., evaluation=...)",
            self.function,
        )
        return (replace(self, _frozen=True),)

    def placed(self, layout: Layout | None, min_visible: float) -> Apply:
        """The step behind a step that gives arrays of this layout, or behind none."""
        return replace(self, _layout=layout or "HWC", _min_visible=min_visible)

    def apply(self, image: Any, boxes: Boxes | None, rng: Generator) -> tuple[Any, Boxes | None]:
        """Call the function.

        Raises:
            InputError: It cannot move the boxes, or returns nothing.
        """
        draws_none = self._frozen or rng is None
        made = self._called(image, boxes, 0 if draws_none else int(rng.integers(1 << 63)))
        return made.image, made.boxes

    def tried(self, image: Any) -> tuple[Any, Apply]:
        """Call the function with an image for trial.

        Returns:
            What it gives, and the step that knows what it does.
        """
        before = self._found or _Found(draws=False, changes=False)
        made = self._called(image, None, 0)
        drew = made.drew
        if is_albumentations(self.function):
            # Each of its parts draws whether it is to be done, also one that always is.
            same = (
                np.array_equal(
                    as_array(made.image), as_array(self._called(image, None, seed).image)
                )
                for seed in range(1, _SEEDS)
            )
            drew = may_draw(self.function) or not all(same)
        found = _Found(
            before.draws or drew,
            before.changes or _form(made.image) != _form(image),
            before.unpacks
            or (isinstance(image, Image.Image) and isinstance(made.image, np.ndarray)),
        )
        return made.image, replace(self, _found=found)

    def _called(self, image: Any, boxes: Boxes | None, seed: int) -> _Made:
        function = self.function
        if is_albumentations(function):
            made = _Made(*albumented(function, image, boxes, seed, self._min_visible), True)
        elif is_torchvision(function):
            made = _Made(*torchvisioned(function, image, boxes, seed, self._layout))
        elif boxes is not None and not self.keeps_boxes:
            raise InputError(
                "steps that move boxes along",
                f"{function!r} for an image with boxes",
                "Say Apply(function, keeps_boxes=True) if it moves nothing, or derive a step from "
                "PictureStep.",
            )
        elif self._takes_rng:
            made = _Made(function(image, rng=np.random.default_rng(seed)), boxes, True)
        elif self.draws is False:
            made = _Made(function(image), boxes, False)
        else:
            with seeded(seed) as drew:
                made = _Made(function(image), boxes, drew())
        if made.image is None:
            raise InputError(
                f"a picture or an array from {function!r}", "None", "Let it return the image."
            )
        return made


def _takes_rng(function: object) -> bool:
    try:
        return "rng" in inspect.signature(function).parameters  # type: ignore[arg-type] # callable
    except (TypeError, ValueError):
        # Some functions written in C do not tell.
        return False


def _form(image: Any) -> tuple[Any, ...]:
    array = as_array(image)
    return is_tensor(image), array.dtype, array.shape


def as_steps(steps: Iterable[Any]) -> tuple[Any, ...]:
    """Steps, where functions become `Apply`; what is neither stays as it is."""
    found: list[Any] = []
    for step in steps:
        for part in chained(step):
            plain = isinstance(part, Step | type) or not callable(part)
            found.append(part if plain else Apply(part))
    return tuple(found)
