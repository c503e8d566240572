"""A look at images: the first rows of a frame as one sheet of small pictures."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont
from pyspark.sql import DataFrame

from zoo.errors import ColumnError, InputError
from zoo.orca.data.image.image_decoder import MAX_PIXELS, in_mode, open_picture, values_of
from zoo.orca.data.image.ndarray_codec import decode_ndarray
from zoo.orca.data.image.steps.boxes import Boxes
from zoo.orca.data.storage import locate
from zoo.orca.data.tensors.plan_columns import quoted

__all__ = ["ImageGrid", "show_images"]

_Rgb = tuple[int, int, int]
_GAP, _TEXT = 8, 12
# Drawn at twice the size in points, for screens with dense pixels.
_DENSITY = 2
# Told apart by most eyes, on dark pictures and on bright ones.
_BOX_COLOURS: tuple[_Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)


class _Theme(NamedTuple):
    ground: _Rgb
    tile: _Rgb
    text: _Rgb
    bad: _Rgb


_THEMES = {
    "light": _Theme((250, 250, 250), (232, 232, 232), (60, 60, 60), (176, 58, 46)),
    "dark": _Theme((30, 30, 32), (52, 52, 55), (214, 214, 214), (236, 112, 99)),
}


@dataclass(frozen=True)
class ImageGrid:
    """A sheet of pictures. A notebook shows it; `save` writes it as a PNG file.

    Attributes:
        image: The sheet, as a Pillow picture.
        width: How wide it is shown; it has twice as many pixels.
        shown: How many rows of the frame it shows.
        bad: The number of each row that could not be shown, from 0, and why.
    """

    image: Image.Image = field(repr=False)
    width: int
    shown: int
    bad: dict[int, str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sheet as a PNG file, on any file system."""
        locate(path).write_bytes(self._repr_png_())

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self._repr_png_()).decode("ascii")
        said = html.escape(f"{self.shown} images, {len(self.bad)} of them bad", quote=True)
        return f'<img alt="{said}" width="{self.width}" src="data:image/png;base64,{data}">'


class _Cell(NamedTuple):
    """What a row shows."""

    image: Any
    title: str | None
    boxes: Any


def show_images(
    frame: DataFrame | pd.DataFrame,
    *,
    image: str = "image",
    title: str | None = None,
    boxes: str | None = None,
    rows: int = 4,
    columns: int = 8,
    size: int = 96,
    theme: Literal["light", "dark"] = "light",
) -> ImageGrid:
    """Draw the first images of a frame, side by side.

    Only as many rows as are shown leave the cluster. An image that cannot be decoded is a tile
    with a cross.

    Args:
        frame: A Spark or a pandas DataFrame.
        image: A column with the bytes of image files, or with arrays: (height, width) or with
            one, three or four channels first or last. Floats from 0 to 1 and numbers from 0 to 255
            are shown as they are; others, such as normalised ones and deep images, are stretched
            to what can be seen.
        title: A column whose values stand under the images.
        boxes: A column with boxes to draw: xmin, ymin, xmax, ymax relative to the image, and a
            class, which chooses the colour.
        rows: Rows of the grid, at most.
        columns: Columns of the grid, at most.
        size: The longer side of an image, in points.
        theme: "light" or "dark".

    Raises:
        ColumnError: A column is missing.
        InputError: A setting is out of range, or `frame` is no frame.
    """
    _check_settings(rows, columns, size, theme)
    cells = list(_cells(frame, (image, title, boxes), rows * columns))
    colours = _THEMES[theme]
    bad: dict[int, str] = {}
    tiles = []
    for number, cell in enumerate(cells):
        try:
            tile = _tile(_picture(cell.image, size * _DENSITY), cell.boxes, size, colours)
        except InputError as exc:
            bad[number] = str(exc)
            tile = _crossed(size, colours)
        tiles.append(tile)
    titles = [cell.title or "" for cell in cells] if title else None
    sheet = _sheet(tiles, titles, min(columns, max(1, len(tiles))), size, colours)
    return ImageGrid(sheet, sheet.width // _DENSITY, len(tiles), bad)


def _check_settings(rows: int, columns: int, size: int, theme: str) -> None:
    for name, value, most in (("rows", rows, 100), ("columns", columns, 100), ("size", size, 1024)):
        if not isinstance(value, int) or not 0 < value <= most:
            raise InputError(f"{name} from 1 to {most}", repr(value), "Give an int.")
    if rows * columns * size * size * _DENSITY**2 > MAX_PIXELS:
        raise InputError(
            f"a sheet of at most {MAX_PIXELS} pixels",
            f"{rows} x {columns} images of {size} points",
            "Show fewer or smaller images.",
        )
    if theme not in _THEMES:
        raise InputError("theme 'light' or 'dark'", repr(theme), "Choose one of them.")


# Rows


def _cells(
    frame: DataFrame | pd.DataFrame, names: Sequence[str | None], count: int
) -> Iterator[_Cell]:
    if not isinstance(frame, DataFrame | pd.DataFrame):
        raise InputError("a Spark or pandas DataFrame", type(frame).__name__, "Convert it.")
    wanted = list(dict.fromkeys(name for name in names if name is not None))
    known = [str(name) for name in frame.columns]
    if missing := [name for name in wanted if name not in known]:
        raise ColumnError(f"columns of the frame, which has {known}", str(missing), "Correct it.")
    table: dict[str, Any]
    if isinstance(frame, DataFrame):
        arrow = frame.select(*map(quoted, wanted)).limit(count).toArrow()
        table = dict(zip(wanted, arrow.columns, strict=True))
    else:
        table = {name: frame[name].iloc[:count] for name in wanted}
    image, title, boxes = (table.get(name) if name else None for name in names)
    assert image is not None
    for number in range(len(image)):
        yield _Cell(
            _plain(_at(image, number)),
            None if title is None else _text(_plain(_at(title, number))),
            None if boxes is None else _plain(_at(boxes, number)),
        )


def _at(column: Any, number: int) -> Any:
    return column.iloc[number] if isinstance(column, pd.Series) else column[number]


def _plain(value: Any) -> Any:
    """A cell as bytes, text, number or array; nested lists of Arrow without a Python list."""
    if not isinstance(value, pa.Scalar):
        return value
    if not pa.types.is_list(value.type):
        return value.as_py()
    if not value.is_valid:
        return None
    shape, values = [len(value.values)], value.values
    while pa.types.is_list(values.type):
        values = values.flatten()
        shape.append(len(values) // max(1, math.prod(shape)))
    if math.prod(shape) != len(values):
        return value.as_py()
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _text(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return " ".join(shown.split())


# Pictures


def _picture(value: Any, side: int) -> Image.Image:
    """A picture of a cell, no longer than a side, and larger where it is tiny."""
    if isinstance(value, bytes | bytearray | memoryview):
        with open_picture(bytes(value), MAX_PIXELS) as file:
            file.draft("RGB", (2 * side, 2 * side))
            if file.mode[0] in "IF":
                picture = _picture_of_array(np.asarray(values_of(file)))
            else:
                picture = in_mode(file, "RGBA" if "A" in file.getbands() else "RGB", "scale")
    else:
        picture = _picture_of_array(value)
    factor = side / max(picture.size)
    width, height = (max(1, round(length * factor)) for length in picture.size)
    # Large pixels show what a tiny image holds; smoothing would invent the rest.
    how = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    return picture.resize((width, height), how, reducing_gap=2.0)


def _picture_of_array(value: Any) -> Image.Image:
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise _no_picture(f"lists of several lengths ({exc})") from exc
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise _no_picture(f"{type(value).__name__} of shape {array.shape} and type {array.dtype}")
    if array.ndim == 3:
        if array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        elif array.shape[2] not in (1, 3, 4):
            raise _no_picture(f"an array of shape {array.shape}")
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _no_picture(f"an array of shape {array.shape}")
    return Image.fromarray(np.ascontiguousarray(_visible(array)))


def _visible(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    is_share = array.dtype.kind in "bf"
    array = np.nan_to_num(array.astype(np.float64))
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        array = (array - low) / max(high - low, 1e-12) * 255
    elif is_share and high <= 1:
        array = array * 255
    return np.clip(np.round(array), 0, 255).astype(np.uint8)


def _no_picture(received: str) -> InputError:
    return InputError(
        "the bytes of an image file, or an array of pixels", received, "Name the image column."
    )


# The sheet


def _tile(picture: Image.Image, boxes: Any, size: int, theme: _Theme) -> Image.Image:
    side = size * _DENSITY
    tile = Image.new("RGB", (side, side), theme.tile)
    at = ((side - picture.width) // 2, (side - picture.height) // 2)
    tile.paste(picture, at, picture if picture.mode == "RGBA" else None)
    if boxes is not None:
        rows = decode_ndarray(boxes) if isinstance(boxes, bytes) else boxes
        draw = ImageDraw.Draw(tile)
        for row in Boxes.of(rows).rows():
            corners = [
                at[n % 2] + float(row[n]) * (picture.size[n % 2] - 1) + 0.0 for n in range(4)
            ]
            colour = _BOX_COLOURS[int(row[4]) % len(_BOX_COLOURS) if len(row) > 4 else 0]
            draw.rectangle(corners, outline=(0, 0, 0), width=_DENSITY + 2)
            draw.rectangle(corners, outline=colour, width=_DENSITY)
    return tile


def _crossed(size: int, theme: _Theme) -> Image.Image:
    side = size * _DENSITY
    tile = Image.new("RGB", (side, side), theme.tile)
    draw = ImageDraw.Draw(tile)
    low, high = side * 3 // 8, side * 5 // 8
    for ends in ((low, low, high, high), (low, high, high, low)):
        draw.line(ends, fill=theme.bad, width=max(2, side // 40))
    draw.rectangle((0, 0, side - 1, side - 1), outline=theme.bad, width=_DENSITY)
    return tile


def _sheet(
    tiles: Sequence[Image.Image],
    titles: Sequence[str] | None,
    columns: int,
    size: int,
    theme: _Theme,
) -> Image.Image:
    side, gap = size * _DENSITY, _GAP * _DENSITY
    font = ImageFont.load_default(_TEXT * _DENSITY)
    caption = (_TEXT + 6) * _DENSITY if titles else 0
    rows = max(1, math.ceil(len(tiles) / columns))
    width, height = gap + columns * (side + gap), gap + rows * (side + caption + gap)
    sheet = Image.new("RGB", (width, height), theme.ground)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        left = gap + number % columns * (side + gap)
        top = gap + number // columns * (side + caption + gap)
        sheet.paste(tile, (left, top))
        if titles:
            text = _fitting(titles[number], font, side)
            middle = (left + side / 2, top + side + caption / 2)
            draw.text(middle, text, fill=theme.text, font=font, anchor="mm")
    return sheet


def _fitting(text: str, font: Any, width: int) -> str:
    """As much of a text as fits, its middle cut out: paths differ at their end."""
    text = text[:500]
    if font.getlength(text) <= width:
        return text
    for kept in range(min(len(text) - 1, width), 1, -1):
        short = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if font.getlength(short) <= width:
            return short
    return text[:1]
