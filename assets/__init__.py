"""What the package ships to try everything with, without a download."""

from .example import EXAMPLE_PICTURE, draw_table
from .micro import random_parts, write_random_checkpoint
from .paths import MICRO_CHECKPOINT, MICRO_LANGUAGE_MODEL, SCENE_PICTURE
from .shapes import ShapeChats, ShapePairs, ShapeRows

__all__ = [
    "EXAMPLE_PICTURE",
    "MICRO_CHECKPOINT",
    "MICRO_LANGUAGE_MODEL",
    "SCENE_PICTURE",
    "ShapeChats",
    "ShapePairs",
    "ShapeRows",
    "draw_table",
    "random_parts",
    "write_random_checkpoint",
]
