"""Where the trained micro model lies, the language model that it began with, and a picture for it."""

from __future__ import annotations

from pathlib import Path

MICRO_CHECKPOINT = Path(__file__).with_name("lyrics_micro")
MICRO_LANGUAGE_MODEL = Path(__file__).with_name("lyrics_micro_language")
SCENE_PICTURE = Path(__file__).with_name("scene.png")
