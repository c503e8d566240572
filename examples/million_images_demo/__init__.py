"""What the program `million_images.py` draws, measures and prints."""

from million_images_demo.program import Pace, arguments, say
from million_images_demo.shapes import CLASSES, write_folder, write_scenes

__all__ = ["CLASSES", "Pace", "arguments", "say", "write_folder", "write_scenes"]
