import io

import numpy as np
import pytest
from PIL import Image
from yolo.boxes import square_pixels
from yolo.data import Examples, augmentation

tf = pytest.importorskip("tensorflow")

CORNERS = [[0.2, 0.3, 0.6, 0.9, 1], [0.5, 0.1, 0.8, 0.25, 0]]


def records(*labels: list[list[float]]) -> "tf.data.Dataset":
    draw = np.random.default_rng(0)
    files = []
    for _ in labels:
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (60, 80, 3), np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    images = tf.data.Dataset.from_tensor_slices(files)
    boxes = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(labels, 1, inner_shape=(5,)))
    names = tf.data.Dataset.from_tensor_slices([f"{n}.png" for n in range(len(labels))])
    joined = tf.data.Dataset.zip((images, boxes, names))
    return joined.map(lambda i, b, n: {"image": i, "label": tf.cast(b, tf.float32), "image_id": n})


def taken(data: "tf.data.Dataset") -> list[tuple[np.ndarray, np.ndarray]]:
    return [(image.numpy(), objects[0].numpy()) for image, objects in data]


def test_images_and_padded_objects() -> None:
    data = records(CORNERS, CORNERS[:1]).apply(Examples(square_pixels(64), 2, 3))
    images, (large, _, small) = next(iter(data.batch(2)))
    assert images.shape == (2, 64, 64, 3)
    assert (data.cardinality(), images.dtype) == (2, tf.float32)
    assert (large.numpy() == small.numpy()).all()
    # 80 x 60 in 64 x 64: 48 rows, 8 below the upper edge.
    expected = [0.2, (0.3 * 48 + 8) / 64, 0.6, (0.9 * 48 + 8) / 64, 1]
    np.testing.assert_allclose(large[1], [expected, [0] * 5, [0] * 5], atol=1e-6)


def test_chance_is_the_same_in_each_run_and_another_in_each_epoch() -> None:
    given = records(CORNERS, CORNERS)
    first, second = (given.apply(Examples(augmentation(64), 2, 3, seed=4)) for _ in range(2))
    epochs = [taken(first), taken(first)]
    assert all((a[0] == b[0]).all() for a, b in zip(epochs[0], taken(second), strict=True))
    assert not any((a[0] == b[0]).all() for a, b in zip(*epochs, strict=True))


def test_objects_stay_on_what_they_are_around() -> None:
    """A red thing on grey, through fifty augmentations: its box is where the red is."""
    pixels = np.full((60, 80, 3), 120, np.uint8)
    pixels[18:54, 16:48] = 250, 20, 20
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    pipeline, seen = augmentation(96), 0
    for key in range(50):
        image, objects = pipeline.with_boxes(buffer.getvalue(), [CORNERS[0]], key)
        if len(objects):
            red = image[..., 0] - image[..., 1] > 0.3
            rows, columns = np.nonzero(red)
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert abs(objects[0, :4] * 96 - found).max() < 2.5
            seen += 1
    assert seen > 40


def test_bad_box_stops_and_is_named() -> None:
    bad = records(CORNERS, [[0.6, 0.3, 0.2, 0.9, 1]]).apply(Examples(square_pixels(64), 2))
    with pytest.raises(tf.errors.OpError, match=r"xmin < xmax.*0\.6.*\(1\.png\)"):
        taken(bad)


def test_too_many_objects_are_told() -> None:
    with pytest.raises(tf.errors.OpError, match=r"at most 1 objects; received 2 \(0\.png\)"):
        taken(records(CORNERS).apply(Examples(square_pixels(64), 2, most=1)))
