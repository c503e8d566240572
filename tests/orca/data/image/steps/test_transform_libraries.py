"""Transforms of torchvision and of albumentations as steps."""

import inspect
import itertools
import os
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyspark import cloudpickle

from image_file import DATA, PIXELS, file_of
from zoo.errors import InputError
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.image.steps.forms import as_array
from zoo.orca.data.image.steps.transform_libraries import torchvisioned
from zoo.orca.data.image.transforms import (
    Apply,
    CenterCrop,
    Normalize,
    RandomFlip,
    Resize,
    ToCHW,
    ToHWC,
)


@pytest.fixture(scope="module")
def v2() -> Any:
    try:
        return pytest.importorskip("torchvision.transforms.v2")
    except RuntimeError as exc:
        pytest.skip(f"torchvision is there for another build of torch: {exc}")


@pytest.fixture(scope="module")
def albumentations() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or it asks the network for newer versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("albumentations")


def painted(seed: int) -> tuple[bytes, list[float]]:
    """A white rectangle in a black picture, and its box."""
    rng = random.Random(seed)
    left, top = rng.randrange(100), rng.randrange(80)
    width, height = rng.randrange(20, 60), rng.randrange(20, 40)
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[top : top + height, left : left + width] = 255
    return file_of(pixels), [left / 160, top / 120, (left + width) / 160, (top + height) / 120]


def edges(pixels: np.ndarray) -> list[int]:
    bright = pixels.min(axis=2) > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def same_each_time(pipeline: ImagePipeline) -> list[bytes]:
    """What keys give: with threads, in another order, and in a pickled copy."""
    first = [pipeline(DATA, key=(7, row)).tobytes() for row in range(8)]
    torch.manual_seed(random.randrange(9))
    again = pickle.loads(cloudpickle.dumps(pipeline))
    assert [again(DATA, key=(7, row)).tobytes() for row in reversed(range(8))] == first[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: pipeline(DATA, (7, row)).tobytes(), range(8))) == first
    return first


# torchvision


def usual(v2: Any, *steps: Any) -> list[Any]:
    return [
        *steps,
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]


def test_torchvision_without_chance_is_what_it_is_outside(v2: Any) -> None:
    chain = v2.Compose(usual(v2, v2.Resize((20, 30)), v2.CenterCrop(16)))
    pipeline = ImagePipeline(chain)
    assert (pipeline.shape, pipeline.dtype) == ((3, 16, 16), np.float32)
    assert not pipeline.random
    np.testing.assert_array_equal(pipeline(DATA), chain(Image.fromarray(PIXELS)).numpy())


def test_torchvision_draws_from_the_key(v2: Any) -> None:
    flips = usual(v2, v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5))
    assert len(set(same_each_time(ImagePipeline(v2.Compose(flips))))) == 8
    mixed = v2.RandomApply([v2.Lambda(lambda image: image.rotate(random.uniform(1, 9)))], p=0.9)
    assert len(set(same_each_time(ImagePipeline(mixed, Resize(8, 8))))) > 5


def test_torchvision_leaves_the_generator_of_the_training_alone(v2: Any) -> None:
    pipeline = ImagePipeline(v2.RandomResizedCrop(16), v2.ColorJitter(0.5))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    pipeline(DATA, key=1)
    assert torch.equal(torch.rand(4), expected)


def test_every_transform_of_torchvision_draws_from_the_key(v2: Any) -> None:
    """Those that need no argument, and some more: none draws past our generator."""
    kinds = [kind for _, kind in inspect.getmembers(v2, inspect.isclass)]
    made: list[Any] = [v2.RandomAffine(9, (0.1, 0.1)), v2.RandomRotation(9), v2.RandomCrop(20)]
    made += [v2.GaussianBlur(3), v2.ScaleJitter((32, 32)), v2.RandomPosterize(2, p=1.0)]
    made += [
        v2.RandomSolarize(99),
        v2.RandomResize(9, 20),
        v2.RandomResizedCrop(12),
        v2.JPEG((5, 50)),
    ]
    made += [v2.RandomChoice([v2.RandomErasing(1.0), v2.RandomRotation(9)])]
    for kind in kinds:
        needs = [
            one
            for one in list(inspect.signature(kind).parameters.values())
            if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        ]
        if not needs and kind.__name__ not in ("Transform", "ToTensor", "UniformTemporalSubsample"):
            made.append(kind())
    picture = Image.fromarray(PIXELS)
    bits = v2.ToImage()(picture)
    forms = (picture, bits, v2.ToDtype(torch.float32)(bits))
    checked = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step, image in itertools.product(made, forms):
            torch.manual_seed(5)
            state = torch.get_rng_state()
            try:
                one, two = (torchvisioned(step, image, None, 1, "CHW")[0] for _ in range(2))
            except (TypeError, ValueError, RuntimeError, NotImplementedError):
                continue  # not for this form of an image
            checked += 1
            assert torch.equal(torch.get_rng_state(), state), step
            np.testing.assert_array_equal(as_array(one), as_array(two), err_msg=repr(step))
    assert checked > 60


def test_torchvision_between_steps_of_ours(v2: Any) -> None:
    pipeline = ImagePipeline(
        v2.ToImage(), v2.RandomHorizontalFlip(1.0), CenterCrop(40, 60), ToCHW()
    )
    np.testing.assert_allclose(pipeline(DATA), PIXELS[:, ::-1].transpose(2, 0, 1) / 255, rtol=1e-6)
    erased = ImagePipeline(ToCHW(), v2.RandomErasing(1.0), Normalize(0.5, 0.5))
    assert erased(DATA, 1).shape == (3, 40, 60)
    with pytest.raises(InputError, match="ToCHW before"):
        ImagePipeline(ToHWC(), v2.RandomErasing(1.0))


def test_torchvision_in_evaluation(v2: Any, caplog: pytest.LogCaptureFixture) -> None:
    crop = Apply(v2.RandomResizedCrop(16), evaluation=v2.Resize((16, 16)))
    pipeline = ImagePipeline(*usual(v2, crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)))
    evaluation = pipeline.for_evaluation()
    chain = v2.Compose(usual(v2, v2.Resize((16, 16))))
    np.testing.assert_array_equal(evaluation(DATA), chain(Image.fromarray(PIXELS)).numpy())
    assert not caplog.records


def test_torchvision_moves_boxes(v2: Any) -> None:
    for seed in range(12):
        data, box = painted(seed)
        steps = [v2.RandomResizedCrop(100, scale=(0.4, 1)), v2.RandomHorizontalFlip(), v2.ToImage()]
        pipeline = ImagePipeline(*steps, v2.ClampBoundingBoxes(), CenterCrop(90), min_visible=0.4)
        array, boxes = pipeline.with_boxes(data, [[*box, 7]], key=seed)
        if len(boxes):
            np.testing.assert_allclose(boxes[0, :4] * 90, edges(array), atol=1)
            assert boxes[0, 4] == 7


def test_torchvision_says_how_much_of_a_box_is_left(v2: Any) -> None:
    for least, kept in ((0.2, 1), (0.3, 0)):
        pipeline = ImagePipeline(v2.CenterCrop((40, 30)), min_visible=least)
        assert len(pipeline.with_boxes(DATA, [[0, 0, 1 / 3, 1]])[1]) == kept
    sanitized = ImagePipeline(v2.CenterCrop((40, 30)), v2.SanitizeBoundingBoxes())
    _, boxes = sanitized.with_boxes(DATA, [[0, 0, 0.1, 1, 4], [0.4, 0, 0.6, 1, 5]])
    assert boxes[:, 4].tolist() == [5]


# albumentations


def test_albumentations_without_chance_is_what_it_is_outside(albumentations: Any) -> None:
    chain = albumentations.Compose(
        [
            albumentations.Resize(20, 30),
            albumentations.CenterCrop(16, 16),
            albumentations.Normalize(),
        ]
    )
    pipeline = ImagePipeline(chain)
    assert (pipeline.shape, pipeline.dtype) == ((16, 16, 3), np.float32)
    assert not pipeline.random
    np.testing.assert_array_equal(pipeline(DATA), chain(image=PIXELS)["image"])


def test_albumentations_draws_from_the_key(albumentations: Any) -> None:
    parts = [albumentations.RandomCrop(16, 16), albumentations.HorizontalFlip(p=0.5)]
    parts += [albumentations.RandomBrightnessContrast(p=0.8), albumentations.GaussNoise(p=1.0)]
    for steps in (parts, [albumentations.Compose(parts)]):
        pipeline = ImagePipeline(*steps, ToCHW())
        assert pipeline.random
        assert len(set(same_each_time(pipeline))) == 8


def test_albumentations_in_evaluation(albumentations: Any) -> None:
    resize = albumentations.Resize(9, 8)
    evaluation = ImagePipeline(albumentations.HorizontalFlip(p=0.5), resize).for_evaluation()
    assert not evaluation.random
    np.testing.assert_array_equal(evaluation(DATA), resize(image=PIXELS)["image"])


def test_albumentations_moves_boxes(albumentations: Any) -> None:
    crop = albumentations.RandomResizedCrop((100, 100), scale=(0.4, 1.0))
    params = albumentations.BboxParams("coco", label_fields=["kinds"])
    chain = albumentations.Compose([crop, albumentations.HorizontalFlip()], bbox_params=params)
    for seed in range(12):
        data, box = painted(seed)
        for steps in ([crop, albumentations.HorizontalFlip()], [chain]):
            pipeline = ImagePipeline(*steps, RandomFlip(1.0), min_visible=0.4)
            array, boxes = pipeline.with_boxes(data, [[*box, 7], [*box, 8]], key=seed)
            assert boxes[:, 4].tolist() in ([7, 8], [])
            if len(boxes):
                np.testing.assert_allclose(boxes[0, :4] * 100, edges(array), atol=1)
            pipeline(data, key=seed)  # without boxes, whatever the chain says of them


def test_albumentations_wants_rows_of_pixels(albumentations: Any) -> None:
    with pytest.raises(InputError, match="ToHWC before"):
        ImagePipeline(ToCHW(), albumentations.HorizontalFlip())
