"""A folder as VOC has it, with pictures that are drawn here: shapes on a ground."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

__all__ = ["SHAPES", "annotation", "write_shapes", "write_split"]

SHAPES = ("disc", "square", "triangle")
_YEAR = 2007
_SIZES = ((160, 120), (120, 160), (144, 144), (192, 108))
_COLOURS = ("#e4572e", "#f3a712", "#a8c686", "#669bbc", "#7a5195", "#2a9d8f", "#ef8fa3", "#fafafa")
_SMOOTH = 3
_Box = tuple[int, int, int, int]
_OUTLINES = {
    "disc": [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 48, endpoint=False)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)],
}


def write_shapes(
    root: str, train: int, held_out: int, *, seed: int = 0, photos: str | None = None
) -> str:
    """Write `VOC2007` with the splits `train` and `val`.

    Args:
        root: The folder of the folder; that one is made anew.
        train: Pictures to train on.
        held_out: Others, in the split `val`.
        seed: Of chance.
        photos: A folder of photographs that are the grounds; without, grounds are drawn, too.

    Returns:
        The root.
    """
    folder, draw = Path(root, f"VOC{_YEAR}"), np.random.default_rng(seed)
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    grounds = sorted(Path(photos).rglob("*.jpg")) if photos else []
    names = [f"{number:06}" for number in range(train + held_out)]
    for name in names:
        picture, objects = _scene(grounds, draw)
        picture.save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        text = annotation(f"{name}.jpg", picture.size, objects)
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    write_split(folder, "train", names[:train])
    write_split(folder, "val", names[train:])
    return root


def write_split(folder: Path, split: str, names: Iterable[str]) -> None:
    """Write the list of the images of a split."""
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


def annotation(file: str, size: tuple[int, int], objects: Sequence[tuple[str, _Box]]) -> str:
    """What stands in the XML file of an image: names and boxes of its objects, in pixels."""
    things = "".join(
        f"<object><name>{escape(name)}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for name, (x1, y1, x2, y2) in objects
    )
    sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    head = f"<filename>{escape(file)}</filename><size>{sides}</size>"
    return f"<annotation>{head}\n{things}</annotation>\n"


def _scene(
    grounds: Sequence[Path], draw: np.random.Generator
) -> tuple[Image.Image, list[tuple[str, _Box]]]:
    size = _SIZES[draw.integers(len(_SIZES))]
    ground = _photo(grounds[draw.integers(len(grounds))], size) if grounds else _drawn(size, draw)
    picture = ground.resize((size[0] * _SMOOTH, size[1] * _SMOOTH))
    pen, objects, taken = ImageDraw.Draw(picture), [], []
    for _ in range(int(draw.integers(2, 7))):
        name = SHAPES[draw.integers(len(SHAPES))]
        radius = draw.uniform(0.09, 0.3) * min(size)
        middle = [draw.uniform(radius, side - radius) for side in size]
        if any(math.dist(middle, other) < radius + far for *other, far in taken):
            continue
        taken.append((*middle, radius))
        turn = draw.uniform(-0.4, 0.4)
        sin, cos = radius * math.sin(turn), radius * math.cos(turn)
        corners = [(middle[0] + a * cos - b * sin, middle[1] + a * sin + b * cos)
                   for a, b in _OUTLINES[name]]  # fmt: skip
        colour = _COLOURS[draw.integers(len(_COLOURS))]
        outline = [(x * _SMOOTH, y * _SMOOTH) for x, y in corners]
        pen.polygon(outline, fill=colour, outline="#202428", width=_SMOOTH)
        objects.append((name, _around(corners, size)))
    return picture.resize(size, Image.Resampling.BOX), objects


def _around(corners: Sequence[tuple[float, float]], size: tuple[int, int]) -> _Box:
    (left, *_, right), (top, *_, bottom) = (sorted(axis) for axis in zip(*corners, strict=True))
    return (max(0, math.floor(left)), max(0, math.floor(top)),
            min(size[0], math.ceil(right)), min(size[1], math.ceil(bottom)))  # fmt: skip


def _photo(path: Path, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(Image.open(path).convert("RGB"), size)


def _drawn(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """Clouds of colour with some grain: coarse noise made larger, and fine noise on it."""
    coarse = draw.integers(50, 200, (4, 5, 1)) + draw.integers(-30, 31, (4, 5, 3))
    clouds = Image.fromarray(coarse.astype("uint8")).resize(size, Image.Resampling.BICUBIC)
    grain = draw.normal(0, 8, (size[1], size[0], 3))
    pixels = np.clip(np.asarray(clouds, float) + grain, 0, 255).astype("uint8")
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))
