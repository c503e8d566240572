"""Pictures of shapes as JPEG files: one in a picture with its class, or several with boxes."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["CLASSES", "write_folder", "write_scenes"]

CLASSES = ("circle", "cross", "heart", "square", "star", "triangle")
_COLOURS = ("#e4572e", "#f3a712", "#a8c686", "#669bbc", "#7a5195", "#2a9d8f", "#ef8fa3")
_GROUNDS = ((38, 70, 83), (233, 226, 208), (92, 107, 115), (250, 243, 221), (61, 52, 78))
_SMOOTH = 3
_Box = tuple[float, float, float, float]


def write_folder(folder: str, count: int, seed: int = 0) -> int:
    """Write pictures with one shape each into a folder of each class, and break some of them.

    Args:
        folder: It is made anew.
        count: How many files.
        seed: Of chance.

    Returns:
        How many of the files are no whole picture: one in a hundred.
    """
    draw = np.random.default_rng(seed)
    root, broken = _empty(folder), 0
    for name in CLASSES:
        (root / name).mkdir()
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        data = _jpeg(_picture([name], int(draw.integers(56, 97)), draw)[0])
        if number % 100 == 99:
            data = (data[: len(data) // 2], b"", b"<html>Not found</html>")[broken % 3]
            broken += 1
        (root / name / f"{number:07}.jpg").write_bytes(data)
    return broken


def write_scenes(folder: str, count: int, seed: int = 1) -> str:
    """Write pictures with some shapes each, and `boxes.json` in the form of COCO.

    Returns:
        The folder.
    """
    draw = np.random.default_rng(seed)
    root = _empty(folder)
    images, objects = [], []
    for number in range(count):
        names = [CLASSES[k] for k in draw.integers(0, len(CLASSES), int(draw.integers(2, 5)))]
        picture, boxes = _picture(names, 192, draw)
        file = f"{number:04}.jpg"
        (root / file).write_bytes(_jpeg(picture))
        images.append({"id": number, "file_name": file, "width": 192, "height": 192})
        for name, (left, top, right, bottom) in zip(names, boxes, strict=True):
            box = [left, top, right - left, bottom - top]
            which = {"image_id": number, "category_id": CLASSES.index(name)}
            objects.append({"id": len(objects), "bbox": box, "iscrowd": 0, **which})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return folder


def _empty(folder: str) -> Path:
    root = Path(folder)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return file.getvalue()


def _picture(
    names: list[str], size: int, draw: np.random.Generator
) -> tuple[Image.Image, list[_Box]]:
    """A picture, and the boxes around its shapes in pixels."""
    side = size * _SMOOTH
    ground = np.array(_GROUNDS[draw.integers(len(_GROUNDS))], float)
    slope = np.linspace(-18, 18, side)[:, None, None] * draw.choice([-1, 1])
    noise = draw.normal(0, 10, (size, size, 3)).repeat(_SMOOTH, 0).repeat(_SMOOTH, 1)
    picture = Image.fromarray(np.clip(ground + slope + noise, 0, 255).astype("uint8"))
    pen, boxes = ImageDraw.Draw(picture), []
    for place, name in zip(_places(len(names), draw), names, strict=True):
        corners = _shape(name, place, side, draw)
        colour = _COLOURS[draw.integers(len(_COLOURS))]
        pen.polygon(corners, fill=colour, outline="#202428", width=_SMOOTH)
        boxes.append(_around(corners))
    blurred = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0, 2)))
    return blurred.resize((size, size), Image.Resampling.BOX), boxes


def _places(count: int, draw: np.random.Generator) -> list[tuple[float, float, float]]:
    """Middles and radii, as shares of the picture; several shapes keep to their quarters."""
    if count == 1:
        radius = draw.uniform(0.24, 0.38)
        x, y = draw.uniform(radius, 1 - radius, 2)
        return [(x, y, radius)]
    quarters = draw.permutation([(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)])
    places = []
    for x, y in quarters[:count]:
        radius = draw.uniform(0.12, 0.22)
        shift = draw.uniform(radius - 0.24, 0.24 - radius, 2)
        places.append((x + shift[0], y + shift[1], radius))
    return places


def _shape(
    name: str, place: tuple[float, float, float], side: int, draw: np.random.Generator
) -> list[tuple[float, float]]:
    """The outline of a shape, turned a little, in pixels."""
    x, y, radius = (value * side for value in place)
    turn = draw.uniform(-0.35, 0.35)
    sine, cosine = math.sin(turn), math.cos(turn)
    outline = _OUTLINES[name]
    return [(x + radius * (a * cosine - b * sine), y + radius * (a * sine + b * cosine))
            for a, b in outline]  # fmt: skip


def _around(corners: list[tuple[float, float]]) -> _Box:
    across, down = zip(*corners, strict=True)
    return tuple(v / _SMOOTH for v in (min(across), min(down), max(across), max(down)))


def _ring(points: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    angles = [2 * math.pi * n / points - math.pi / 2 for n in range(points)]
    return [
        (radii[n % len(radii)] * math.cos(a), radii[n % len(radii)] * math.sin(a))
        for n, a in enumerate(angles)
    ]


def _heart() -> list[tuple[float, float]]:
    steps = [2 * math.pi * n / 60 for n in range(60)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in steps
    ]


_CROSS = [(-1, -0.35), (-0.35, -0.35), (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35)]
_OUTLINES = {
    "circle": _ring(48, (1.0,)),
    "cross": [*_CROSS, *((-x, -y) for x, y in _CROSS)],
    "heart": _heart(),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _ring(10, (1.0, 0.42)),
    "triangle": _ring(3, (1.0,)),
}
