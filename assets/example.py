"""Paths of the shipped models and images, and the drawing of the example image."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

MICRO_CHECKPOINT = Path(__file__).with_name("lyrics_micro")  # the trained micro model
MICRO_LANGUAGE_MODEL = Path(__file__).with_name("lyrics_micro_language")  # the language model that it was built from
MICRO_PRETRAINING = Path(__file__).with_name("lyrics_micro_pretraining")  # its first stage, without a refiner
MICRO_SEARCH = Path(__file__).with_name("lyrics_micro_search")  # the same, tuned to be searched
SCENE_PICTURE = Path(__file__).with_name("scene.png")  # a scene for the micro model
EXAMPLE_PICTURE = Path(__file__).with_name("example.png")  # written by `draw_table`


def draw_table(width: int = 480, height: int = 320) -> Image.Image:
    """Draw a red ball, a blue cup and a yellow book on a brown table in front of a window.

    Args:
        width: width in pixels.
        height: height in pixels.
    """
    picture = Image.new("RGB", (480, 320), (232, 226, 214))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((300, 30, 440, 150), fill=(160, 205, 235), outline=(250, 250, 250), width=8)
    draw.line((370, 30, 370, 150), fill=(250, 250, 250), width=6)
    draw.rectangle((30, 215, 450, 240), fill=(140, 90, 50))
    draw.rectangle((50, 240, 70, 320), fill=(120, 75, 40))
    draw.rectangle((410, 240, 430, 320), fill=(120, 75, 40))
    draw.ellipse((80, 155, 140, 215), fill=(200, 40, 40), outline=(120, 20, 20), width=2)
    draw.arc((240, 165, 285, 205), 270, 90, fill=(40, 70, 160), width=7)
    draw.polygon(((190, 150), (262, 150), (254, 215), (198, 215)), fill=(50, 90, 190))
    draw.ellipse((190, 143, 262, 157), fill=(80, 120, 220))
    draw.polygon(((320, 200), (400, 200), (390, 215), (310, 215)), fill=(240, 200, 40), outline=(150, 120, 10))
    draw.line((355, 200, 347, 215), fill=(150, 120, 10), width=2)
    return picture.resize((width, height), Image.Resampling.LANCZOS) if (width, height) != picture.size else picture
