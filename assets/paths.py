"""Where the trained micro model lies, and a picture for it."""

from __future__ import annotations

from pathlib import Path

MICRO_CHECKPOINT = Path(__file__).with_name("lyrics_micro")
SCENE_PICTURE = Path(__file__).with_name("scene.png")
