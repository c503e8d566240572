"""What the program `million_images.py` draws, measures and prints."""

from million_images_demo.pictures import draw_images, draw_scenes
from million_images_demo.program import Pace, arguments, say
from million_images_demo.shapes import CLASSES, write_folder

__all__ = ["CLASSES", "Pace", "arguments", "draw_images", "draw_scenes", "say", "write_folder"]
