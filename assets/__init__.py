"""Data and models that ship with the package, so that it can be tried without a download."""

from ..datasets_lyrics.toy_data import ShapeChats, ShapePairs, ShapeRows
from .example import (
    EXAMPLE_PICTURE,
    MICRO_CHECKPOINT,
    MICRO_LANGUAGE_MODEL,
    MICRO_PRETRAINING,
    MICRO_SEARCH,
    SCENE_PICTURE,
    draw_table,
)
from .random_model import random_parts, write_random_checkpoint

__all__ = [
    "EXAMPLE_PICTURE",
    "MICRO_CHECKPOINT",
    "MICRO_LANGUAGE_MODEL",
    "MICRO_PRETRAINING",
    "MICRO_SEARCH",
    "SCENE_PICTURE",
    "ShapeChats",
    "ShapePairs",
    "ShapeRows",
    "draw_table",
    "random_parts",
    "write_random_checkpoint",
]
