"""Functions of the user's own as steps."""

import logging
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pyspark import cloudpickle
from pyspark.sql import SparkSession

from image_file import DATA, PIXELS
from zoo.errors import InputError
from zoo.orca.data.image.image_frame import transform_images
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.image.transforms import (
    Apply,
    CenterCrop,
    Normalize,
    RandomFlip,
    Resize,
    ToCHW,
    ToHWC,
)


def noisy(image: Any, rng: np.random.Generator) -> np.ndarray:
    pixels = np.asarray(image)
    return (pixels ^ rng.integers(0, 4, pixels.shape, dtype=np.uint8)).astype(np.uint8)


def turned(image: Image.Image) -> Image.Image:
    return image.rotate(random.uniform(-9, 9))


def dimmed(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) * np.random.uniform(0.5, 1)).astype(np.uint8)


def hidden(image: Image.Image) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return tensor * (torch.rand(1) < 0.5) + torch.rand_like(tensor)


def swapped(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[:, :, ::-1]


# What functions get and give


def test_function_gets_a_picture_first() -> None:
    array = ImagePipeline(ImageOps.invert, Resize(40, 60))(DATA)
    np.testing.assert_array_equal(array, 255 - PIXELS)


def test_function_gets_the_array_behind_to_chw() -> None:
    seen = []
    array = ImagePipeline(ToCHW(), lambda array: seen.append(array) or array * 2)(DATA)
    assert (seen[-1].shape, seen[-1].dtype) == ((3, 40, 60), np.float32)
    np.testing.assert_allclose(array, PIXELS.transpose(2, 0, 1) / 255 * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((swapped, Resize(40, 60)), PIXELS[:, :, ::-1]),
        ((np.asarray, lambda pixels: pixels[:20]), PIXELS[:20]),
        ((swapped, ToCHW(None)), PIXELS[:, :, ::-1].transpose(2, 0, 1)),
        ((lambda image: torch.tensor(PIXELS).permute(2, 0, 1), CenterCrop(40, 60)), PIXELS),
        ((lambda image: torch.tensor(PIXELS[:2]),), PIXELS[:2]),
        ((lambda image: image.convert("L"), ToHWC(None)), None),
    ],
)
def test_arrays_and_tensors_become_pictures_where_steps_want_them(
    steps: Any, expected: np.ndarray | None
) -> None:
    array = ImagePipeline(*steps)(DATA)
    if expected is None:
        expected = np.asarray(Image.fromarray(PIXELS).convert("L"))[:, :, None]
    np.testing.assert_array_equal(array, expected, strict=True)
    assert array.flags.writeable


def test_normalize_behind_a_function_wants_a_layout() -> None:
    with pytest.raises(InputError, match="layout='CHW' if it makes a tensor"):
        ImagePipeline(hidden, Normalize(0, 1))
    pipeline = ImagePipeline(swapped, Normalize((1, 2, 3), 2, layout="HWC"))
    np.testing.assert_allclose(pipeline(DATA), (PIXELS[:, :, ::-1] - np.array([1, 2, 3])) / 2)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((lambda image: None,), "Let it return the image"),
        ((lambda image: np.asarray(image) / 255, Resize(4, 4)), "type float64"),
        ((lambda image: image.convert("CMYK"), Resize(4, 4)), "mode 'CMYK'"),
        ((lambda image: image.convert("CMYK"),), "mode 'CMYK'"),
        ((lambda image: np.zeros((2, 3, 4, 5), "uint8"), ToCHW()), r"shape \(2, 3, 4, 5\)"),
    ],
)
def test_what_is_no_image(steps: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ImagePipeline(*steps)(DATA)


@pytest.mark.parametrize("function", [None, 3, Resize, "x", Resize(3, 3)])
def test_what_is_no_function(function: Any) -> None:
    with pytest.raises(InputError, match="Give a function"):
        Apply(function)
    if function is not None and not isinstance(function, Resize):
        with pytest.raises(InputError, match="Give a function"):
            Apply(swapped, evaluation=function)


# Chance


@pytest.mark.parametrize("function", [noisy, turned, dimmed, hidden])
def test_draws_follow_from_the_key(function: Any) -> None:
    pipeline = ImagePipeline(function, seed=3)
    assert pipeline.random
    assert pipeline.live
    random.seed(0)
    first = [pipeline(DATA, key=(0, row)).tobytes() for row in range(6)]
    random.seed(1)
    np.random.seed(1)
    again = pickle.loads(cloudpickle.dumps(pipeline))
    assert [again(DATA, key=(0, row)).tobytes() for row in reversed(range(6))] == first[::-1]
    assert len(set(first)) == 6
    assert ImagePipeline(function)(DATA, key=(0, 1)).tobytes() != first[1]


@pytest.mark.parametrize("function", [turned, dimmed, hidden])
def test_generators_of_the_process_stay_as_they_are(function: Any) -> None:
    pipeline = ImagePipeline(function)

    def drawn(between: Any) -> list[Any]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        between()
        return [random.random(), np.random.random(), torch.rand(1).item()]

    assert drawn(lambda: pipeline(DATA, key=1)) == drawn(lambda: None)


@pytest.mark.parametrize("function", [noisy, turned, dimmed, hidden])
def test_threads_share_functions(function: Any) -> None:
    pipeline = ImagePipeline(Resize(9, 9), function)
    alone = [pipeline(DATA, key).tobytes() for key in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda key: pipeline(DATA, key).tobytes(), range(40)))
    assert together == alone


def test_function_that_draws_nothing_is_no_chance() -> None:
    pipeline = ImagePipeline(swapped, Resize(8, 9), ToCHW())
    assert not pipeline.random
    assert not pipeline.live
    assert pipeline.for_evaluation() is pipeline
    assert (pipeline.shape, pipeline.dtype) == ((3, 8, 9), np.float32)


def test_function_that_draws_seldom_does_so_from_the_key() -> None:
    """A trial does not see it, yet two runs are the same."""

    def seldom(image: Image.Image) -> Image.Image:
        return image.rotate(random.uniform(-9, 9)) if image.width == 60 else image

    pipeline = ImagePipeline(seldom, RandomFlip())
    draws = {pipeline(DATA, key).tobytes() for key in range(8)}
    assert {pipeline(DATA, key).tobytes() for key in range(8)} == draws
    assert len(draws) == 8


def test_shape_is_that_of_all_trials() -> None:
    assert ImagePipeline(swapped).shape is None
    assert ImagePipeline(swapped).dtype == np.uint8
    assert ImagePipeline(Apply(swapped, draws=False)).dtype is None
    assert ImagePipeline(lambda image: image.crop((9000, 0, 1, 1))).random  # no trial succeeds


# Evaluation


def test_what_keeps_the_form_is_left_out() -> None:
    evaluation = ImagePipeline(turned, Resize(8, 9), ToCHW()).for_evaluation()
    assert evaluation.steps == (Resize(8, 9), ToCHW())
    unpacked = ImagePipeline(noisy, lambda pixels: pixels[::-1]).for_evaluation()
    np.testing.assert_array_equal(unpacked(DATA), PIXELS[::-1])


def test_what_changes_the_form_stays_and_draws_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evaluation = ImagePipeline(hidden).for_evaluation()
    assert "Say what takes its place" in caplog.text
    assert not evaluation.random
    arrays = [evaluation(DATA, key) for key in (None, 1, 2)]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    np.testing.assert_array_equal(arrays[0], arrays[2])
    assert evaluation.for_evaluation() == evaluation


def test_evaluation_takes_the_place() -> None:
    for draws in (None, True, False):
        step = Apply(swapped, draws=draws, evaluation=ImageOps.invert)
        evaluation = ImagePipeline(step).for_evaluation()
        np.testing.assert_array_equal(evaluation(DATA), 255 - PIXELS)
    fixed = ImagePipeline(Apply(hidden, evaluation=CenterCrop(4)), live=True, seed=2)
    assert fixed.for_evaluation() == ImagePipeline(CenterCrop(4), live=True, seed=2)


# Boxes


def test_boxes_are_refused_unless_they_stay() -> None:
    with pytest.raises(InputError, match="keeps_boxes=True"):
        ImagePipeline(swapped).with_boxes(DATA, [[0, 0, 1, 1]])
    pipeline = ImagePipeline(Apply(swapped, keeps_boxes=True), RandomFlip(1.0))
    _, boxes = pipeline.with_boxes(DATA, [[0, 0, 0.25, 1, 7]])
    np.testing.assert_allclose(boxes, [[0.75, 0, 1, 1, 7]])


# In Spark


@pytest.mark.spark
def test_functions_in_tasks_draw_the_same_each_time(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(DATA,)] * 6, "image binary").repartition(3)

    def hues(image: Image.Image) -> Image.Image:
        return Image.eval(image, lambda level: level // random.choice([1, 2, 3, 5, 7]))

    for function in (turned, hues, lambda image, rng: image.rotate(rng.uniform(-9, 9))):
        made = transform_images(frame, ImagePipeline(function, Resize(4, 4)), encode="png").frame
        first, again = ([bytes(row["image"]) for row in made.collect()] for _ in range(2))
        assert first == again
        assert len(set(first)) > 2
