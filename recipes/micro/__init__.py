"""Micro model: a complete Lyrics model, trained from scratch on synthetic scenes and questions about them."""

from .world.datasets import SymbolicDialogues, picture_rows, write_rows
from .world.objects import HELD_OUT, Scene, SceneObject
from .world.questions import FAMILIES, Question, ask, ask_many, caption
from .world.scenes import draw_scene

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "Question",
    "Scene",
    "SceneObject",
    "SymbolicDialogues",
    "ask",
    "ask_many",
    "caption",
    "draw_scene",
    "picture_rows",
    "write_rows",
]
