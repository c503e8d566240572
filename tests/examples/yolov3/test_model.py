import keras
import numpy as np
import pytest
from keras import layers
from yolo.model import YoloV3, darknet53

from zoo.errors import InputError

PAPER_FLOATS = 62_001_757
"""Of yolov3.weights as its authors gave it out: 248,007,048 bytes, 20 of them a header."""


def convolutions(model: keras.Model) -> list[layers.Conv2D]:
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]


@pytest.fixture(scope="module")
def whole() -> keras.Model:
    return YoloV3()


@pytest.fixture(scope="module")
def narrow() -> keras.Model:
    keras.utils.set_random_seed(0)
    return YoloV3(128, classes=3, width=1 / 8)


@pytest.mark.slow
def test_whole_network_has_the_papers_parameters(whole: keras.Model) -> None:
    assert whole.count_params() == PAPER_FLOATS == (248_007_048 - 20) // 4
    found = convolutions(whole)
    assert len(found) == 75
    assert sum(layer.use_bias for layer in found) == 3
    assert sum(isinstance(one, layers.BatchNormalization) for one in whole.layers) == 72
    assert sum(isinstance(one, layers.Add) for one in whole.layers) == 1 + 2 + 8 + 8 + 4
    shapes = [tuple(output.shape) for output in whole.outputs]
    assert shapes == [(None, cells, cells, 3, 85) for cells in (13, 26, 52)]


def test_backbone_is_darknet_53() -> None:
    """52 convolutions in the order of the paper's table 1: kernel, filters, stride."""
    image = keras.Input((64, 64, 3))
    backbone = keras.Model(image, darknet53(image, 1 / 16))
    expected = [(3, 2, 1)]
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        expected.append((3, filters // 16, 2))
        expected += [(1, filters // 32, 1), (3, filters // 16, 1)] * blocks
    found = [(one.kernel_size[0], one.filters, one.strides[0]) for one in convolutions(backbone)]
    assert len(found) == 52
    assert found == expected
    assert [output.shape[1] for output in backbone.outputs] == [8, 4, 2]


def test_narrow_network(narrow: keras.Model) -> None:
    assert [tuple(o.shape[1:]) for o in narrow.outputs] == [(n, n, 3, 8) for n in (4, 8, 16)]
    # All but the first and last layers have a 64th of the weights.
    assert narrow.count_params() < PAPER_FLOATS / 60


def test_network_is_made_again_from_its_config(narrow: keras.Model) -> None:
    again = keras.Model.from_config(narrow.get_config())
    again.set_weights(narrow.get_weights())
    image = np.random.default_rng(0).random((2, 128, 128, 3), np.float32)
    for one, other in zip(narrow(image), again(image), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-5, atol=1e-6)


def test_small_objects_are_told_where_they_are(narrow: keras.Model) -> None:
    """What changes in a corner of the image changes that corner of the finest output most."""
    plain = np.full((1, 128, 128, 3), 0.5, np.float32)
    marked = plain.copy()
    marked[:, 96:, :32] = np.random.default_rng(0).random((32, 32, 3))
    change = np.abs(np.array(narrow(marked)[2]) - np.array(narrow(plain)[2])).sum(axis=(0, 3, 4))
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert row >= 8 > column


@pytest.mark.parametrize(("size", "classes"), [(100, 3), (0, 3), (416, 0)])
def test_sizes_that_cannot_be(size: int, classes: int) -> None:
    with pytest.raises(InputError, match=r"multiple of 32|at least one class"):
        YoloV3(size, classes=classes)
