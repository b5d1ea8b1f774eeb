"""What the package ships to try everything with, without a download."""

from .example import EXAMPLE_PICTURE, draw_table
from .micro import random_parts, write_random_checkpoint
from .shapes import ShapeRows

__all__ = ["EXAMPLE_PICTURE", "ShapeRows", "draw_table", "random_parts", "write_random_checkpoint"]
