import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from yolo.anchors import ANCHORS, MASKS
from yolo.loss import YoloLoss

CLASSES, MOST = 3, 8


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def entropy(wanted: float, logit: float) -> float:
    return max(logit, 0) - logit * wanted + math.log1p(math.exp(-abs(logit)))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def best_anchor(w: float, h: float) -> int:
    shared = [min(w, a) * min(h, b) for a, b in ANCHORS]
    fits = [s / (w * h + a * b - s) for s, (a, b) in zip(shared, ANCHORS, strict=True)]
    return fits.index(max(fits))


def plain_loss(objects: np.ndarray, output: np.ndarray, mask: tuple[int, ...]) -> float:
    """The loss of one image and output: box by box, as the paper and Darknet have it."""
    cells, total = len(output), 0.0
    real = [row for row in objects if row[2] > row[0] and row[3] > row[1]]
    wanted = {}
    for x1, y1, x2, y2, number in real:
        w, h, x, y = x2 - x1, y2 - y1, (x1 + x2) / 2 * cells, (y1 + y2) / 2 * cells
        best = best_anchor(w, h)
        if best in mask:
            row, column = min(int(y), cells - 1), min(int(x), cells - 1)
            place = (row, column, mask.index(best))
            wanted[place] = (x - column, y - row, w, h, best, int(number))
    for row in range(cells):
        for column in range(cells):
            for k, anchor in enumerate(mask):
                values = output[row, column, k]
                if (row, column, k) in wanted:
                    x, y, w, h, best, number = wanted[row, column, k]
                    scale = 2 - w * h
                    total += scale * (entropy(x, values[0]) + entropy(y, values[1]))
                    logs = math.log(w / ANCHORS[best][0]), math.log(h / ANCHORS[best][1])
                    total += scale * sum((v - t) ** 2 for v, t in zip(values[2:4], logs)) / 2  # noqa: B905 - one of each
                    total += entropy(1.0, values[4])
                    total += sum(entropy(float(c == number), values[5 + c]) for c in range(CLASSES))
                    continue
                x = (sigmoid(values[0]) + column) / cells
                y = (sigmoid(values[1]) + row) / cells
                w = math.exp(min(values[2], 8)) * ANCHORS[anchor][0]
                h = math.exp(min(values[3], 8)) * ANCHORS[anchor][1]
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                if max((overlap(box, tuple(r[:4])) for r in real), default=0.0) <= 0.5:
                    total += entropy(0.0, values[4])
    return total


def batch(seed: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with from none to eight objects: large and small, doubled, at edges, the whole."""
    draw = np.random.default_rng(seed)
    objects = np.zeros((6, MOST, 5))
    for image in range(1, 6):
        count = (0, 1, 3, 5, 8, 8)[image]
        middle = draw.uniform(0.05, 0.95, (count, 2))
        half = np.exp(draw.uniform(-4.5, -0.7, (count, 2))) / 2
        rows = np.concatenate([np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)], axis=1)
        objects[image, :count] = np.column_stack([rows, draw.integers(0, CLASSES, count)])
    objects[2, 0, :4] = 0, 0, 1, 1
    objects[3, 1] = [*objects[3, 0, :4], (objects[3, 0, 4] + 1) % CLASSES]  # one box for two
    objects[4, 7, :4] = 1 - 1e-7, 1 - 1e-7, 1, 1  # its middle is the last corner
    outputs = draw.normal(0, 1.5, (6, cells, cells, 3, 5 + CLASSES))
    outputs[5, 0, 0, 0] = 80, -80, 30, -30, 90, *[-90] * CLASSES
    return objects, outputs


def row_losses(objects: np.ndarray, outputs: np.ndarray, mask: tuple[int, ...]) -> np.ndarray:
    loss = YoloLoss(ANCHORS, mask, CLASSES, reduction=None, dtype="float64")
    return keras.ops.convert_to_numpy(loss(objects, outputs))


@pytest.mark.parametrize(("mask", "cells"), [(MASKS[0], 2), (MASKS[1], 4), (MASKS[2], 8)])
def test_loss_is_that_of_each_box(mask: tuple[int, ...], cells: int) -> None:
    objects, outputs = batch(cells, cells)
    expected = [plain_loss(*pair, mask) for pair in zip(objects, outputs, strict=True)]
    np.testing.assert_allclose(row_losses(objects, outputs, mask), expected, rtol=1e-9)
    rough = np.arange(6) != 4  # the last box of that image is too small for single precision
    single = YoloLoss(ANCHORS, mask, CLASSES)(objects[rough], outputs[rough].astype("float32"))
    assert float(single) == pytest.approx(np.mean(np.array(expected)[rough]), rel=1e-4)


def test_no_object_is_left_out() -> None:
    objects, _ = batch(0, 4)
    taken = 0
    for mask, cells in zip(MASKS, (2, 4, 8), strict=True):
        sure = np.zeros((6, cells, cells, 3, 5 + CLASSES))
        sure[..., 4] = -1e6  # which is the loss of each object that is there; the rest is small
        taken += np.floor(row_losses(objects, sure, mask) / 1e6).sum()
    # Twice the same box is one.
    assert taken == (1 + 3 + 5 + 8 + 8) - 1


def test_gradient_is_the_slope_of_the_loss() -> None:
    tf = pytest.importorskip("tensorflow")
    objects, outputs = batch(7, 4)
    given = tf.Variable(outputs)
    with tf.GradientTape() as tape:
        value = YoloLoss(ANCHORS, MASKS[1], CLASSES, dtype="float64")(objects, given)
    gradient = tape.gradient(value, given).numpy()
    draw, step = np.random.default_rng(0), 1e-5
    steep = np.argwhere(abs(gradient) > 0.05)
    places = [*draw.permutation(steep)[:15], *draw.integers(0, gradient.shape, (10, 5))]
    for place in map(tuple, places):
        losses = []
        for sign in (-1, 1):
            moved = outputs[place[0]].copy()
            moved[place[1:]] += sign * step
            losses.append(plain_loss(objects[place[0]], moved, MASKS[1]))
        slope = (losses[1] - losses[0]) / (2 * step) / len(outputs)
        assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_mean_over_parts_of_a_batch_is_that_of_the_batch() -> None:
    objects, outputs = batch(3, 4)
    loss = YoloLoss(ANCHORS, MASKS[1], CLASSES, dtype="float64")
    parts = [float(loss(objects[a:b], outputs[a:b])) * (b - a) for a, b in ((0, 1), (1, 6))]
    assert sum(parts) / 6 == pytest.approx(float(loss(objects, outputs)), rel=1e-12)


def test_loss_is_made_again_from_its_config() -> None:
    objects, outputs = batch(3, 4)
    loss = YoloLoss(ANCHORS, MASKS[1], CLASSES, ignore=0.3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert float(again(objects, outputs)) == float(loss(objects, outputs))


OTHER = """
import sys
import numpy as np
from yolo.anchors import ANCHORS, MASKS
from yolo.detect import as_detector
from yolo.loss import YoloLoss
from yolo.model import YoloV3
held = np.load(sys.argv[1])
import keras
assert keras.backend.backend() == sys.argv[2]
loss = YoloLoss(ANCHORS, MASKS[1], 3, reduction=None)(held["objects"], held["outputs"])
model = YoloV3(64, classes=3, width=1 / 16)
model.set_weights([held[f"w{n}"] for n in range(len(model.weights))])
found = as_detector(model, ANCHORS, 20)(held["images"])
np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), held["loss"], rtol=2e-4)
np.testing.assert_allclose(keras.ops.convert_to_numpy(found), held["found"], atol=2e-4)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_give_the_same(backend: str, tmp_path: Path) -> None:
    from yolo.detect import as_detector
    from yolo.model import YoloV3

    pytest.importorskip(backend)
    objects, outputs = batch(3, 4)
    model = YoloV3(64, classes=3, width=1 / 16)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    np.savez(
        tmp_path / "held.npz",
        objects=objects, outputs=outputs.astype("float32"), images=images,
        loss=row_losses(objects, outputs, MASKS[1]),
        found=keras.ops.convert_to_numpy(as_detector(model, ANCHORS, 20)(images)),
        **{f"w{n}": w for n, w in enumerate(model.get_weights())},
    )  # fmt: skip
    root = Path(__file__).parents[3]
    paths = f"{root / 'examples' / 'yolov3'}:{root / 'src'}"
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path / "held.npz"), backend],
        env={"KERAS_BACKEND": backend, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr
