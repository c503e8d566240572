"""Real image files for the tests of image datasets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from image_file import file_of


def picture(height: int, width: int, *, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return file_of(pixels, kind)


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., bytes]:
    return picture


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes, five images each, with names that are hard on paths."""
    root = tmp_path / "my images"
    for number, name in enumerate(("chat ébène", "dog's [b]")):
        folder = root / name
        folder.mkdir(parents=True)
        for image in range(5):
            data = picture(8, 6, seed=10 * number + image)
            (folder / f"ß {image}%20.png").write_bytes(data)
    return root
