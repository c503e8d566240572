"""Sheets of pictures: the images, the same after random steps, and boxes that move along."""

from __future__ import annotations

from pyspark.sql import DataFrame

from million_images_demo.shapes import write_scenes
from zoo.orca.data.image import (
    ImagePipeline,
    read_parquet,
    show_images,
    transform_images,
    write_parquet,
)
from zoo.orca.data.image.transforms import ColorJitter, PictureStep, RandomFlip, RandomResizedCrop

__all__ = ["draw_images", "draw_scenes"]


def draw_images(frame: DataFrame, folder: str, *steps: PictureStep) -> str:
    """Draw the first images of a frame into `images.png`, and changed by steps `augmented.png`."""
    show_images(frame, title="label_str", rows=3).save(f"{folder}/images.png")
    changed = transform_images(frame, ImagePipeline(*steps)).frame
    show_images(changed, title="label_str", rows=3).save(f"{folder}/augmented.png")
    return f"{folder}/images.png, augmented.png"


def draw_scenes(folder: str, count: int = 6) -> str:
    """Write pictures with boxes as a dataset, and draw it into `boxes.png` and `moved.png`."""
    scenes, path = write_scenes(f"{folder}/scenes", count), f"{folder}/scenes.parquet"
    write_parquet("coco", path, image_dir=scenes, annotation_file=f"{scenes}/boxes.json")
    frame = read_parquet("spark", path)
    steps = RandomResizedCrop(192, scale=(0.4, 0.8)), RandomFlip(1.0), ColorJitter(0.3, 0.3)
    moved = transform_images(frame, ImagePipeline(*steps), boxes="label").frame
    for name, scenes_shown in (("boxes", frame), ("moved", moved)):
        grid = show_images(scenes_shown, boxes="label", columns=6, size=128)
        grid.save(f"{folder}/{name}.png")
    return "boxes.png, moved.png"
