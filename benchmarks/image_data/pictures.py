"""Random pictures: smooth colours with noise, so that their JPEGs are as large as photographs'."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from image_data.job import CLASSES, PROCESSES, Job, in_processes

# The noise and quality with which 32, 224 and 500 pixels take about 1, 12 and 60 KB.
_NOISE, _QUALITY = 7.0, 80
_SPARE = 64


def make_pictures(job: Job) -> None:
    """Write the JPEGs of a job, no two alike, in a folder for each class."""
    for number in range(CLASSES):
        (job.images / str(number)).mkdir(parents=True)
    in_processes(lambda numbers: _write(job, numbers), range(job.files), PROCESSES)


def _write(job: Job, numbers: Sequence[int]) -> None:
    size = job.pixels + _SPARE
    noise = np.random.default_rng(0).normal(0, _NOISE, (size, size, 3)).astype(np.int16)
    for number in numbers:
        name = f"{number:07d}.jpg"
        (job.images / str(number % CLASSES) / name).write_bytes(_jpeg(job.pixels, number, noise))


def _jpeg(pixels: int, seed: int, noise: npt.NDArray[np.int16]) -> bytes:
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
    x, y = draw.integers(0, _SPARE, 2)
    noisy = np.asarray(smooth, np.int16) + noise[y : y + pixels, x : x + pixels]
    stream = io.BytesIO()
    picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    picture.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def mean_kib(job: Job) -> float:
    """Return the mean size of some of the files."""
    some: list[Path] = sorted((job.images / "0").iterdir())[:200]
    return sum(file.stat().st_size for file in some) / len(some) / 1024
