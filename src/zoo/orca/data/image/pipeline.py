"""Bytes of an image file through decoding and a chain of steps to an array, boxes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image.image_decoder import (
    CHANNELS,
    DAMAGE,
    MAX_PIXELS,
    Deep,
    check_deep,
    in_mode,
    open_picture,
)
from zoo.orca.data.image.steps.apply import Apply, as_steps
from zoo.orca.data.image.steps.arrays import ToArray, pixels_of
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.image.steps.chain import (
    Ending,
    check_steps,
    fused,
    given_to,
    placed,
    tried,
)
from zoo.orca.data.image.steps.forms import as_array, as_picture
from zoo.orca.data.image.steps.resizing import ResizingStep
from zoo.orca.data.image.steps.step import ArrayStep, Picture, PictureStep, Size, Step

__all__ = ["ImagePipeline", "Key", "RecordTransform"]

Key = int | Sequence[int]
"""Whole numbers from 0 that name one use of one image, such as (epoch, row)."""

_ORIENTATION = 0x0112
# What turns a picture upright, by the number that cameras store.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True, init=False)
class ImagePipeline:
    """Decodes an image and takes it through steps; callable on the bytes, picklable, thread-safe.

    Random steps draw from a generator made of the seed and the key of a call: the same key gives
    the same array, in any process. Without a key every call draws anew.

    Args:
        steps: From `zoo.orca.data.image.transforms`: picture steps first, then at most one of
            `ToCHW` and `ToHWC`, then array steps. Without one of these two the result is the
            uint8 pixels (height, width, channel). Functions of a picture or an array, and
            transforms of torchvision and albumentations, are steps too: see `Apply`.
        mode: "L" (grey), "RGB" or "RGBA". Images of other kinds are converted.
        seed: The first of the numbers that random steps are drawn from.
        live: Whether a training should decode anew in every epoch, and not once before the first;
            None says yes when a step is random.
        upright: Turn photographs as the camera noted (EXIF). Boxes are those of the turned
            picture. TIFF files are turned in any case.
        min_visible: Boxes are dropped when less of their area than this is left in the picture.
        max_pixels: Larger images are refused from their header, before any memory is taken.
        deep: What becomes of 16 bits a channel: "refuse" (an error), or "scale", where 0 to 65535
            becomes 0 to 255. Images of 32 bits and of floats are refused in any case.

    Raises:
        InputError: A setting is out of range, or the order of the steps makes no sense.

    Example:
        >>> from zoo.orca.data.image.transforms import RandomFlip, Resize, ToCHW
        >>> pipeline = ImagePipeline(Resize(32, 32), RandomFlip(), ToCHW())
        >>> pipeline.shape, pipeline.dtype.name, pipeline.random
        ((3, 32, 32), 'float32', True)
    """

    steps: tuple[Step, ...]
    mode: Literal["L", "RGB", "RGBA"]
    seed: int
    live: bool
    upright: bool
    min_visible: float
    max_pixels: int
    deep: Deep
    _chain: tuple[Step, ...] = field(repr=False, compare=False)
    _ending: Ending | None = field(repr=False, compare=False)

    def __init__(
        self,
        *steps: Step | Callable[..., Any],
        mode: Literal["L", "RGB", "RGBA"] = "RGB",
        seed: int = 0,
        live: bool | None = None,
        upright: bool = False,
        min_visible: float = 0.1,
        max_pixels: int = MAX_PIXELS,
        deep: Deep = "refuse",
    ) -> None:
        _check_settings(mode, seed, min_visible, max_pixels)
        check_deep(deep)
        known = as_steps(steps)
        check_steps(known, mode)
        known, ending = placed(known, min_visible), None
        if any(isinstance(step, Apply) and step.draws is not False for step in known):
            known, ending = tried(known, mode)
        values = {
            "steps": known,
            "mode": mode,
            "seed": seed,
            "live": any(step.random for step in known) if live is None else bool(live),
            "upright": upright,
            "min_visible": min_visible,
            "max_pixels": max_pixels,
            "deep": deep,
            "_chain": fused(known),
            "_ending": ending,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def random(self) -> bool:
        """Whether any step draws."""
        return any(step.random for step in self.steps)

    def for_evaluation(self) -> ImagePipeline:
        """The pipeline with nothing left to chance, for validation, evaluation and prediction.

        Random crops become their middle; other random steps are left out. `Apply` says what becomes
        of functions.
        """
        calm = [one for step in self.steps for one in step.without_chance()]
        if not self.random and calm == list(self.steps):
            return self
        return ImagePipeline(
            *calm,
            mode=self.mode,
            seed=self.seed,
            live=self.live,
            upright=self.upright,
            min_visible=self.min_visible,
            max_pixels=self.max_pixels,
            deep=self.deep,
        )

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the arrays, or None when it depends on the image or on a function."""
        if any(isinstance(step, Apply) for step in self.steps):
            return self._ending and self._ending.shape
        size: Size | None = None
        shape: tuple[int, ...] | None = None
        to_array: ToArray | None = None
        for step in self.steps:
            if isinstance(step, PictureStep):
                size = step.size_after(size)
            elif isinstance(step, ToArray):
                to_array, shape = step, step.shape_of(size, CHANNELS[self.mode])
            elif isinstance(step, ArrayStep):
                shape = step.shape_after(shape)
        if to_array is None and size is not None:
            return size[1], size[0], CHANNELS[self.mode]
        return shape

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of the arrays, or None when a step of the user's own decides."""
        if any(isinstance(step, Apply) for step in self.steps):
            return self._ending and self._ending.dtype
        dtype: np.dtype[Any] | None = np.dtype(np.uint8)
        for step in self.steps:
            if isinstance(step, ToArray):
                dtype = step.dtype
            elif isinstance(step, ArrayStep):
                dtype = step.dtype_after(dtype)
        return dtype

    @property
    def makes_pictures(self) -> bool:
        """Whether no step makes an array, so that `picture` can be called."""
        pictures = all(isinstance(step, PictureStep | Apply) for step in self.steps)
        return pictures and self.dtype in (np.uint8, None)

    def __call__(self, data: bytes, key: Key | None = None) -> npt.NDArray[Any]:
        """Return the array of one image; it is contiguous, writable and the caller's own.

        Args:
            data: The bytes of an image file.
            key: What random steps draw from, after the seed.

        Raises:
            InputError: The bytes are no image, a damaged one, or one with too many pixels.
        """
        return _as_array(self._run(data, None, key)[0])

    def with_boxes(
        self, data: bytes, boxes: npt.ArrayLike, key: Key | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Return the array of one image, and the boxes that are still on it.

        Args:
            data: The bytes of an image file.
            boxes: Rows of xmin, ymin, xmax, ymax relative to the image, and more columns, which
                are kept.
            key: What random steps draw from, after the seed.

        Raises:
            InputError: As when called; or the boxes are none.
        """
        result, moved = self._run(data, Boxes.of(boxes), key)
        assert moved is not None
        return _as_array(result), moved.rows(self.min_visible)

    def picture(
        self, data: bytes, boxes: npt.ArrayLike | None = None, key: Key | None = None
    ) -> tuple[Picture, npt.NDArray[np.float32] | None]:
        """Return the picture, before it becomes an array, and the boxes if there are any.

        Raises:
            InputError: As `with_boxes`; or a step makes an array.
        """
        if not self.makes_pictures:
            raise InputError(
                "a pipeline without ToCHW or ToHWC", repr(self.steps), "Leave the array steps out."
            )
        given = None if boxes is None else Boxes.of(boxes)
        image, moved = self._run(data, given, key)
        return as_picture(image), None if moved is None else moved.rows(self.min_visible)

    def _run(self, data: bytes, boxes: Boxes | None, key: Key | None) -> tuple[Any, Boxes | None]:
        rng: Any = self._generator(key) if self.random else None
        result: Any
        result, boxes, steps = self._decoded(data, boxes)
        step: Any
        for step in steps:
            result, boxes = step.apply(given_to(step, result), boxes, rng)
        return result, boxes

    def _generator(self, key: Key | None) -> np.random.Generator:
        if key is None:
            return np.random.default_rng()
        numbers = (key,) if isinstance(key, int | np.integer) else tuple(key)
        try:
            return np.random.default_rng((self.seed, *numbers))
        except (TypeError, ValueError) as exc:
            raise InputError("a key of whole numbers from 0", repr(key), "Count from 0.") from exc

    def _decoded(
        self, data: bytes, boxes: Boxes | None
    ) -> tuple[Picture, Boxes | None, tuple[Step, ...]]:
        """The picture, decoded and turned, and the steps that are left to do."""
        first = self._chain[0] if self._chain else None
        with open_picture(data, self.max_pixels) as file:
            turn = _orientation(file) if self.upright else 1
            size = file.size[::-1] if turn in _ON_THEIR_SIDE else file.size
            if isinstance(first, ResizingStep):
                # JPEG can be decoded at a fraction of its size; twice the target keeps the
                # quality.
                width, height = first.fit(size)
                wanted = (height, width) if turn in _ON_THEIR_SIDE else (width, height)
                file.draft(self.mode, (2 * wanted[0], 2 * wanted[1]))
            image = in_mode(file, self.mode, self.deep)
        if turn in _UPRIGHT:
            image = image.transpose(_UPRIGHT[turn])
        if not isinstance(first, ResizingStep):
            return image, boxes, self._chain
        # Not from the size at hand: a fraction is rounded, and the ratio of the sides with it.
        image, boxes = first.finish(image, size, boxes)
        return image, boxes, self._chain[1:]


@dataclass(frozen=True)
class RecordTransform:
    """Applies a pipeline to a record, a dict from column to value; picklable.

    Args:
        pipeline: What to apply.
        image: The column with the bytes of an image file.
        boxes: The column with the boxes on it, if there are any.
    """

    pipeline: ImagePipeline
    image: str = "image"
    boxes: str | None = None

    @property
    def wants_bytes(self) -> tuple[str, ...]:
        """The columns that a reader should not decode."""
        return (self.image,)

    def __call__(self, record: Mapping[str, Any], key: Key | None = None) -> dict[str, Any]:
        """Return the record with its image as an array, and with its boxes moved.

        Args:
            record: It stays as it is.
            key: As for the pipeline.

        Raises:
            InputError: A column is missing, or the image is bad.
        """
        result = dict(record)
        wanted = [self.image] if self.boxes is None else [self.image, self.boxes]
        if missing := [name for name in wanted if name not in result]:
            raise InputError(
                f"a record with {missing}", f"one with {sorted(result)}", "Name its columns."
            )
        if self.boxes is None:
            result[self.image] = self.pipeline(result[self.image], key)
        else:
            result[self.image], result[self.boxes] = self.pipeline.with_boxes(
                result[self.image], result[self.boxes], key
            )
        return result


def _check_settings(mode: str, seed: int, min_visible: float, max_pixels: int) -> None:
    if mode not in CHANNELS:
        raise InputError("mode 'L', 'RGB' or 'RGBA'", repr(mode), "Choose one of them.")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("seed as a whole number from 0", repr(seed), "Give 0, say.")
    if not 0 <= min_visible <= 1:
        raise InputError("min_visible from 0 to 1", repr(min_visible), "Give a share.")
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError("max_pixels as a positive int", repr(max_pixels), "Give a number.")


def _orientation(file: Picture) -> int:
    if file.format == "TIFF":
        # Pillow turns these itself while it loads them.
        return 1
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except DAMAGE:
        # The pixels may be whole where the notes about them are not.
        return 1


def _as_array(result: Any) -> npt.NDArray[Any]:
    if isinstance(result, Image.Image):
        return np.array(pixels_of(as_picture(result)), order="C")
    array = np.ascontiguousarray(as_array(result))
    return array if array.flags.writeable else array.copy()
