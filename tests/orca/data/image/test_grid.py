import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from zoo.errors import ColumnError, InputError
from zoo.orca.data.image.grid import ImageGrid, _fitting, _text, show_images
from zoo.orca.data.image.image_frame import transform_images
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.image.transforms import Normalize, Resize, ToCHW

RED = np.zeros((20, 30, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def grid_of(*cells: object, **settings: Any) -> ImageGrid:
    return show_images(pd.DataFrame({"image": list(cells)}), size=50, **settings)


def tile(grid: ImageGrid, number: int, columns: int = 8) -> np.ndarray:
    """The pixels of a tile of 50 points, drawn with 100 pixels between gaps of 16."""
    left, top = (16 + at * 116 for at in (number % columns, number // columns))
    return np.asarray(grid.image)[top : top + 100, left : left + 100]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "cell",
    [
        png(RED),
        RED,
        RED.transpose(2, 0, 1),
        (RED / 255).astype(np.float32),
        (RED / 255).transpose(2, 0, 1).tolist(),
        RED.astype(np.float64),
    ],
    ids=["bytes", "HWC", "CHW", "float", "lists", "float255"],
)
def test_bytes_and_arrays_are_drawn_alike(cell: object) -> None:
    drawn = tile(grid_of(cell), 0)
    assert (drawn[50, 5:95] == [255, 0, 0]).all()
    assert (drawn[2] == [232, 232, 232]).all()


def test_normalised_floats_are_stretched() -> None:
    ramp = np.linspace(-2, 2, 100, dtype=np.float32).reshape(10, 10)
    drawn = tile(grid_of(ramp), 0)
    assert drawn.min() == 0
    assert drawn.max() == 255


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_deep_images_are_stretched(dtype: str) -> None:
    ramp = np.linspace(1000, 4000, 100).reshape(10, 10).astype(dtype)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "TIFF")
    for cell in (ramp, buffer.getvalue()):
        drawn = tile(grid_of(cell), 0)
        assert (drawn.min(), drawn.max()) == (0, 255)
        assert len(np.unique(drawn)) > 90


@pytest.mark.parametrize("cell", [np.eye(10, dtype=bool), np.eye(10)[:, :, None], np.eye(10)[None]])
def test_grey_pictures_with_sharp_pixels(cell: np.ndarray) -> None:
    drawn = tile(grid_of(cell), 0)
    assert (drawn[:10, :10] == 255).all()
    assert (drawn[:10, 10:] == 0).all()


def test_transparent_parts_show_the_ground() -> None:
    clear = np.zeros((10, 10, 4), np.uint8)
    assert (tile(grid_of(png(clear), theme="dark"), 0) == [52, 52, 55]).all()


@pytest.mark.parametrize(
    "cell",
    [b"bad", None, "a.png", [[1], [1, 2]], np.zeros((2, 3, 5)), np.zeros(4), 7, png(RED)[:40]],
)
def test_bad_image_is_a_marked_tile_with_a_reason(cell: object) -> None:
    grid = grid_of(RED, cell)
    assert list(grid.bad) == [1]
    assert (tile(grid, 1)[50, 50] == [176, 58, 46]).all()
    assert "Expected" in grid.bad[1]


def test_grid_takes_as_many_as_fit() -> None:
    grid = grid_of(*[RED] * 9, rows=2, columns=3)
    assert grid.shown == 6
    assert grid.image.size == (16 + 3 * 116, 16 + 2 * 116)
    assert (tile(grid, 5, columns=3)[50, 50] == [255, 0, 0]).all()


def test_few_images_make_a_narrow_grid() -> None:
    assert grid_of(RED, RED).width == (16 + 2 * 116) // 2
    assert grid_of().shown == 0


def test_boxes_are_drawn_where_they_are() -> None:
    black = np.zeros((50, 50, 3), np.uint8)
    frame = pd.DataFrame({"image": [black], "boxes": [[[0.2, 0.4, 0.6, 0.8, 2]]]})
    drawn = tile(show_images(frame, boxes="boxes", size=50), 0)
    where = np.argwhere((drawn == [0, 158, 115]).all(axis=2))
    np.testing.assert_allclose([*where.min(axis=0), *where.max(axis=0)], [40, 20, 80, 60], atol=2)


def test_bad_boxes_mark_the_tile() -> None:
    frame = pd.DataFrame({"image": [RED], "boxes": [[[0.9, 0.4, 0.6, 0.8]]]})
    assert "boxes as rows" in show_images(frame, boxes="boxes").bad[0]


def test_titles_stand_under_the_images() -> None:
    frame = pd.DataFrame({"image": [RED, RED], "name": ["", "second\nline"]})
    sheet = np.asarray(show_images(frame, title="name", size=50).image)
    below = sheet[116:152]
    assert (below[:, 16:116] == 250).all()
    assert (below[:, 132:232] < 120).any()


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a\n b", "a b"), (None, ""), (0.123456, "0.1235"), (3, "3"), (np.float64(2), "2")],
)
def test_titles_as_text(value: object, shown: str) -> None:
    assert _text(value) == shown


def test_long_titles_keep_their_ends() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(24)
    short = _fitting("/data/" + "x" * 5000 + "/cat.jpg"[-8:], font, 200)
    assert short.startswith("/dat")
    assert "…" in short
    assert font.getlength(short) <= 200
    assert _fitting("cat", font, 200) == "cat"


def test_notebooks_get_a_picture_and_files_a_png(tmp_path: Path) -> None:
    grid = grid_of(RED, b"bad")
    assert f'width="{grid.width}"' in grid._repr_html_()
    assert 'alt="2 images, 1 of them bad"' in grid._repr_html_()
    grid.save(f"local://{tmp_path}/grid.png")
    assert (tmp_path / "grid.png").read_bytes() == grid._repr_png_()
    with Image.open(tmp_path / "grid.png") as saved:
        assert saved.size == grid.image.size


@pytest.mark.spark
def test_frames_of_spark(spark: SparkSession) -> None:
    rows = [(png(RED), "one", [[0.0, 0.0, 1.0, 1.0]]), (b"bad", "two", None), (None, None, [])]
    frame = spark.createDataFrame(rows, "`my.image` binary, name string, b array<array<double>>")
    grid = show_images(frame, image="my.image", title="name", boxes="b")
    assert (grid.shown, list(grid.bad)) == (3, [1, 2])
    made = transform_images(
        frame,
        ImagePipeline(Resize(8, 8), ToCHW(), Normalize(0.5, 0.5)),
        image="my.image",
        on_error="skip",
    )
    assert show_images(made.frame, image="my.image").bad == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"rows": 0},
        {"columns": 1.5},
        {"size": 5000},
        {"rows": 100, "columns": 100},
        {"theme": "red"},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        show_images(pd.DataFrame({"image": []}), **settings)


def test_what_is_no_frame_and_no_column() -> None:
    with pytest.raises(InputError, match="Spark or pandas"):
        show_images([RED])  # type: ignore[arg-type]
    with pytest.raises(ColumnError, match="photo"):
        show_images(pd.DataFrame({"image": []}), image="photo")
