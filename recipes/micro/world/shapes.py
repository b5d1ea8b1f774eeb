"""Coverage of shapes and characters: how much of each pixel they cover, antialiased."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ....utils.optional_imports import import_optional

_OVERSAMPLING = 4
_MAX_TILT = math.pi / 6
_ANY_TURN_PROBABILITY = 0.25  # of an object that is turned by any angle, such as a square on its corner
_STRETCH_PROBABILITY = 0.4
_ROUND = ("circle", "ring")

_GLYPH_SIZE = 64  # of the font, in pixels
_DEFAULT_FONT = "default"  # Pillow's own
# Fonts that matplotlib ships, and the width of a stroke around thin ones. Other fonts of it are for evaluation only.
_FONTS = {
    _DEFAULT_FONT: 2,
    "DejaVuSans": 1,
    "DejaVuSans-Bold": 0,
    "DejaVuSans-Oblique": 1,
    "DejaVuSerif": 1,
    "DejaVuSerif-Bold": 0,
    "DejaVuSansMono": 1,
    "STIXGeneral": 2,
    "cmss10": 2,
    "cmr10": 3,
}


@dataclass(frozen=True)
class Coverage:
    """Share of each pixel of a tile that something covers.

    Attributes:
        values: float32 array of shape (height, width) in [0, 1].
        left, top: place of the tile's corner in the scene, in pixels. Parts may lie outside of it.
    """

    values: np.ndarray
    left: int
    top: int

    def on(self, width: int, height: int) -> np.ndarray:
        """Return the coverage on an empty scene, float32 of shape (height, width)."""
        scene = np.zeros((height, width), np.float32)
        x1, y1 = max(self.left, 0), max(self.top, 0)
        x2, y2 = min(self.left + self.values.shape[1], width), min(self.top + self.values.shape[0], height)
        scene[y1:y2, x1:x2] = self.values[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left]
        return scene


def cover_shape(
    shape: str, extent: float, center: np.ndarray, outline: float, random: np.random.Generator
) -> tuple[Coverage, Coverage]:
    """Draw a shape of random proportions inside a circle.

    Args:
        shape: word of `SHAPES`.
        extent: diameter of the circle in pixels.
        center: its center, x and y in pixels.
        outline: width of the outline in pixels, which lies inside of the shape. 0 draws none.
        random: random number generator.

    Returns:
        Coverage of the shape and of its outline.
    """
    left, top = (int(value) for value in center - extent / 2 - 1)
    side = (int(extent) + 4) * _OVERSAMPLING
    middle = (center - (left, top)) * _OVERSAMPLING
    radius = extent / 2 * _OVERSAMPLING
    stretch = np.array((random.uniform(0.85, 1), 1)) if random.random() < _STRETCH_PROBABILITY else np.ones(2)
    turn = _MAX_TILT if random.random() >= _ANY_TURN_PROBABILITY else math.pi
    angle = random.uniform(-turn, turn)
    width = round(outline * _OVERSAMPLING)
    tiles = [Image.new("L", (side, side)) for _ in range(2)]
    if shape in _ROUND:
        radii = stretch * radius
        hole = random.uniform(0.5, 0.66) if shape == "ring" else 0.0
        _draw_round(tiles, middle, radii, hole, width)
    else:
        corners = _corners(shape, random) * stretch
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        points = [tuple(corner) for corner in middle + corners @ rotation.T * radius]
        ImageDraw.Draw(tiles[0]).polygon(points, fill=255)
        if width:
            ImageDraw.Draw(tiles[1]).polygon(points, outline=255, width=width)
    body, line = (Coverage(np.asarray(tile.reduce(_OVERSAMPLING), np.float32) / 255, left, top) for tile in tiles)
    return body, line


def _draw_round(tiles: list[Image.Image], middle: np.ndarray, radii: np.ndarray, hole: float, width: int) -> None:
    """Draw a disc, with a hole of some share of its radii, and its outline."""
    body, line = (ImageDraw.Draw(tile) for tile in tiles)
    body.ellipse((*(middle - radii), *(middle + radii)), fill=255)
    if hole:
        body.ellipse((*(middle - hole * radii), *(middle + hole * radii)), fill=0)
    if width:
        line.ellipse((*(middle - radii), *(middle + radii)), outline=255, width=width)
        if hole:
            inner = hole * radii + width / 2
            line.ellipse((*(middle - inner), *(middle + inner)), outline=255, width=width)


def _corners(shape: str, random: np.random.Generator) -> np.ndarray:
    """Return the corners of a shape in the unit circle, of shape (number of corners, 2)."""
    match shape:
        case "square":
            angles, radii = (np.arange(4) + 0.5) / 4, np.ones(4)
        case "triangle":
            angles, radii = np.arange(3) / 3 - 0.25, np.ones(3)
        case "star":
            angles, radii = np.arange(10) / 10 - 0.25, np.tile([1, random.uniform(0.38, 0.5)], 5)
        case _:
            arm = random.uniform(0.22, 0.38)
            quarter = 0.95 * np.array([(1, arm), (arm, arm), (arm, 1)])
            turn = np.array([[0, 1], [-1, 0]])
            return np.concatenate([quarter @ np.linalg.matrix_power(turn, count) for count in range(4)])
    angles = 2 * math.pi * angles
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def cover_character(character: str, height: float, center: np.ndarray, random: np.random.Generator) -> Coverage:
    """Draw a letter or digit in a random font, about `height` pixels high, sometimes tilted, narrow or wide."""
    glyph = _glyph(str(random.choice(list(_FONTS))), character)
    if random.random() < 0.3:
        glyph = glyph.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
        glyph = glyph.crop(glyph.getbbox())
    scale = height / glyph.height
    size = max(1, round(glyph.width * scale * random.uniform(0.85, 1.15))), max(1, round(height))
    values = np.asarray(glyph.resize(size, Image.Resampling.BOX), np.float32) / 255
    left, top = (round(float(middle - side / 2)) for middle, side in zip(center, size, strict=True))
    return Coverage(values, left, top)


@cache
def _glyph(font: str, character: str) -> Image.Image:
    stroke = _FONTS[font]
    loaded: Any = ImageFont.load_default(_GLYPH_SIZE) if font == _DEFAULT_FONT else load_font(font, _GLYPH_SIZE)
    glyph = Image.new("L", (2 * _GLYPH_SIZE, 2 * _GLYPH_SIZE))
    middle = (_GLYPH_SIZE, _GLYPH_SIZE)
    ImageDraw.Draw(glyph).text(middle, character, 255, loaded, anchor="mm", stroke_width=stroke)
    return glyph.crop(glyph.getbbox())


def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font that matplotlib ships, such as `DejaVuSans`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder = import_optional("matplotlib").get_data_path()
    return ImageFont.truetype(f"{folder}/fonts/ttf/{name}.ttf", size)
