"""The micro world: scenes of shapes, drawn on the spot, and what can be asked about them."""

from .world.datasets import ToldRows, picture_rows, write_rows
from .world.questions import FAMILIES, Question, ask, ask_many, caption
from .world.scenes import HELD_OUT, Scene, SceneObject, draw_scene

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "Question",
    "Scene",
    "SceneObject",
    "ToldRows",
    "ask",
    "ask_many",
    "caption",
    "draw_scene",
    "picture_rows",
    "write_rows",
]
