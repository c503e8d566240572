import io
import math

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from yolo.anchors import ANCHORS, MASKS
from yolo.boxes import Letterboxed
from yolo.detect import Candidates, as_detector, found_objects
from yolo.model import YoloV3

from zoo.orca.data.image.ndarray_codec import encode_ndarray

CLASSES = 2


def outputs(seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(0, 1.5, (2, n, n, 3, 5 + CLASSES)).astype("float32") for n in (2, 4, 8)]


def plain_candidates(given: list[np.ndarray], image: int) -> list[list[float]]:
    rows = []
    for output, mask in zip(given, MASKS, strict=True):
        cells = output.shape[1]
        for row, column, k in np.ndindex(cells, cells, 3):
            values = [float(v) for v in output[image, row, column, k]]
            x, y, sure, *kinds = (1 / (1 + math.exp(-v)) for v in (*values[:2], *values[4:]))
            w, h = (math.exp(v) * a / 2 for v, a in zip(values[2:4], ANCHORS[mask[k]], strict=True))
            x, y = (column + x) / cells, (row + y) / cells
            rows += [[x - w, y - h, x + w, y + h, sure * p, c] for c, p in enumerate(kinds)]
    return sorted(rows, key=lambda row: -row[4])


@pytest.mark.parametrize("most", [10, 5000])
def test_candidates_are_the_best_pairs_of_box_and_class(most: int) -> None:
    given = outputs(0)
    found = keras.ops.convert_to_numpy(Candidates(ANCHORS, most)(given))
    for image in range(2):
        expected = plain_candidates(given, image)[:most]
        np.testing.assert_allclose(found[image], expected, rtol=1e-4, atol=1e-6)


def test_detector_has_the_weights_of_the_network() -> None:
    model = YoloV3(64, classes=CLASSES, width=1 / 16)
    detector = as_detector(model, ANCHORS, 30)
    assert detector.output_shape == (None, 30, 6)
    assert detector.weights[0] is model.weights[0]
    again = keras.Model.from_config(detector.get_config())
    again.set_weights(model.get_weights())
    image = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    np.testing.assert_allclose(np.array(again(image)), np.array(detector(image)), atol=1e-6)


@pytest.mark.parametrize("marked", [False, True])
def test_objects_are_told_in_pixels_of_their_image(marked: bool) -> None:
    size, there = (160, 90), np.array([[0.25, 0.5, 0.5, 0.9], [0.6, 0.1, 0.9, 0.3]])
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    square = Letterboxed(*size, 416).forth(there)
    rows = [
        [*square[0], 0.9, 1],
        [*(square[0] + 0.004), 0.8, 1],  # a double
        [*(square[0] + 0.004), 0.7, 0],  # another class
        [*square[1], 0.6, 0],
        [*square[1], 0.001, 1],  # below the threshold
    ]
    shard = pd.DataFrame(
        {
            "image_id": ["a.png"],
            "image": [buffer.getvalue()],
            "label": [encode_ndarray(np.array([[*there[0], 1]], np.float32))],
            "prediction": [np.array(rows, np.float32)],
        }
    )
    if marked:
        shard["difficult"] = [encode_ndarray(np.array([1], np.uint8))]
    found = found_objects(shard, 416).iloc[0]
    pixels = there * [160, 90, 160, 90]
    np.testing.assert_allclose(found.truth, [[*pixels[0], 1, float(marked)]], rtol=1e-6)
    assert found.found[:, 5].tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.found[[0, 2], :4], pixels, atol=1e-3)


def test_an_image_with_nothing() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 20)).save(buffer, "PNG")
    label = encode_ndarray(np.zeros((0, 5), np.float32))
    row = {"image_id": "a", "image": buffer.getvalue(), "label": label}
    found = found_objects(pd.DataFrame([{**row, "prediction": np.zeros((5, 6))}]), 416).iloc[0]
    assert (found.found.shape, found.truth.shape) == ((0, 6), (0, 6))
