"""Synthetic scenes of shapes. A scene depends on its split and its number only.

A scene holds 2 to 9 objects of six shapes, eight colors and three sizes. They are rotated, may overlap, and lie on
plain or textured backgrounds. Some carry a letter or a digit. Boxes and masks cover the visible part of an object. Some
combinations of shape and color appear in test scenes only (`HELD_OUT`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Split = Literal["train", "validation", "test"]

SIZE = 128
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = {
    "red": (215, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 40),
    "green": (45, 150, 60),
    "cyan": (60, 200, 215),
    "blue": (45, 75, 205),
    "purple": (130, 50, 165),
    "pink": (245, 130, 185),
}
SIZES = {"small": (15, 19), "medium": (26, 32), "large": (42, 52)}  # range of diameters in pixels, of 128
CHARACTERS = "ACHTX247"
HELD_OUT = frozenset(zip(list(COLORS)[2:], SHAPES, strict=True))  # (color, shape)

_SPLIT_SEEDS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}
_CHARACTER_SHAPES = ("circle", "square", "triangle", "star")  # a cross and a ring have no room for a character
_CHARACTER_SIZES = ("medium", "large")
_CHARACTER_PROBABILITY = 0.5
_PLACEMENT_ATTEMPTS = 20
_MIN_VISIBLE = 0.75  # share of an object's pixels
_MAX_ROTATION = math.pi / 6
_OVERSAMPLING = 4
_FONT_SIZE = 64
_INK_THRESHOLD = 0.2  # coverage from which a pixel belongs to a character
# Some colors and shapes are more frequent: "popular" negatives of existence questions need frequent names.
_COLOR_WEIGHTS = np.array([4, 2, 3, 3, 2, 4, 2, 2]) / 22
_SHAPE_WEIGHTS = np.array([4, 4, 3, 3, 2, 2]) / 18


@dataclass(frozen=True, eq=False)
class SceneObject:
    """Object of a scene.

    Attributes:
        color: key of `COLORS`.
        shape: word of `SHAPES`.
        size: key of `SIZES`.
        box: xyxy in [0, 1], bounding box of the visible part.
        mask: bool array of shape (128, 128), the visible part.
        character: letter or digit on the object, or `None`.
        character_box: xyxy in [0, 1], bounding box of the character, or `None`.
    """

    color: str
    shape: str
    size: str
    box: tuple[float, float, float, float]
    mask: np.ndarray
    character: str | None = None
    character_box: tuple[float, float, float, float] | None = None

    @property
    def area(self) -> int:
        """Number of visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True, eq=False)
class Scene:
    """RGB image of 128 x 128 pixels with its objects."""

    image: Image.Image
    objects: tuple[SceneObject, ...]


def draw_scene(split: Split, number: int) -> Scene:
    """Draw scene `number` of a split."""
    random = np.random.default_rng((_SPLIT_SEEDS[split], number))
    canvas = _draw_background(random)
    drawn: list[_Layer] = []
    for _ in range(int(random.integers(2, 10))):
        for _ in range(_PLACEMENT_ATTEMPTS):
            candidate = _draw_object(random, split)
            if not any(layer.is_hidden_by(candidate) for layer in drawn):
                for layer in drawn:
                    layer.visible &= ~candidate.alpha
                candidate.paste(canvas)
                drawn.append(candidate)
                break
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    return Scene(image, tuple(layer.to_object() for layer in drawn))


def _draw_background(random: np.random.Generator) -> np.ndarray:
    """Draw a background of two similar greyish colors, float32 of shape (128, 128, 3)."""
    level = random.uniform(165, 245) if random.random() < 0.7 else random.uniform(25, 70)
    first, second = (level + random.uniform(-14, 14, 3) for _ in range(2))
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    match random.choice(("plain", "stripes", "checks", "shade", "noise")):
        case "stripes":
            angle, period = random.uniform(0, math.pi), random.uniform(6, 20)
            share = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi * period) > 0
        case "checks":
            count = random.integers(4, 12)
            share = ((x * count).astype(int) + (y * count).astype(int)) % 2
        case "shade":
            share = x if random.random() < 0.5 else y
        case "noise":
            share = random.random((SIZE, SIZE))
        case _:
            share = np.zeros((SIZE, SIZE))
    return (first + share[..., None] * (second - first)).astype(np.float32)


class _Layer:
    """Object while its scene is drawn: its coverage, its color, and the part that is still visible."""

    def __init__(self, words: tuple[str, str, str], soft: np.ndarray, rgb: np.ndarray) -> None:
        self.words, self.soft, self.rgb = words, soft, rgb
        self.alpha = soft > 0.5
        self.visible = self.alpha.copy()
        self.character: str | None = None
        self.ink: np.ndarray | None = None
        self.ink_rgb = np.zeros(3)

    def is_hidden_by(self, other: _Layer) -> bool:
        """Return whether `other` would cover too much of this object, or any part of its character."""
        if self.ink is not None and (other.alpha & (self.ink > _INK_THRESHOLD)).any():
            return True
        return bool((self.visible & ~other.alpha).sum() < _MIN_VISIBLE * self.alpha.sum())

    def paste(self, canvas: np.ndarray) -> None:
        """Draw the object and its character over a canvas."""
        _blend(canvas, self.soft, self.rgb)
        if self.ink is not None:
            _blend(canvas, self.ink, self.ink_rgb)

    def to_object(self) -> SceneObject:
        """Return the finished object."""
        character_box = None if self.ink is None else _bounding_box(self.ink > _INK_THRESHOLD)
        return SceneObject(*self.words, _bounding_box(self.visible), self.visible, self.character, character_box)


def _blend(canvas: np.ndarray, coverage: np.ndarray, rgb: np.ndarray) -> None:
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    canvas[part] += coverage[part][..., None] * (rgb.astype(np.float32) - canvas[part])


def _bounding_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    x1, y1, x2, y2 = (float(edge) / SIZE for edge in edges)
    return x1, y1, x2, y2


def _draw_object(random: np.random.Generator, split: Split) -> _Layer:
    while True:
        color = str(random.choice(list(COLORS), p=_COLOR_WEIGHTS))
        shape = str(random.choice(SHAPES, p=_SHAPE_WEIGHTS))
        if split == "test" or (color, shape) not in HELD_OUT:
            break
    size = str(random.choice(list(SIZES)))
    extent = random.uniform(*SIZES[size])
    center = random.uniform(extent / 2 + 1, SIZE - extent / 2 - 1, 2)
    soft = _draw_shape(shape, extent, center, random.uniform(-_MAX_ROTATION, _MAX_ROTATION))
    rgb = np.array(COLORS[color]) + random.uniform(-12, 12, 3)
    layer = _Layer((color, shape, size), soft, rgb)
    if size in _CHARACTER_SIZES and shape in _CHARACTER_SHAPES and random.random() < _CHARACTER_PROBABILITY:
        layer.character = str(random.choice(list(CHARACTERS)))
        layer.ink = _draw_character(layer.character, 0.55 * extent, center)
        layer.ink_rgb = np.full(3, 10.0) if rgb @ [0.3, 0.6, 0.1] > 125 else np.full(3, 250.0)
    return layer


def _draw_shape(shape: str, extent: float, center: np.ndarray, angle: float) -> np.ndarray:
    """Draw a shape inside a circle of diameter `extent`, and return its coverage, float32 of shape (128, 128)."""
    left, top = (int(value) for value in center - extent / 2 - 1)
    side = int(extent) + 4
    tile = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(tile)
    middle = (center - (left, top)) * _OVERSAMPLING
    radius = extent / 2 * _OVERSAMPLING
    if shape in ("circle", "ring"):
        for share, fill in ((1, 255), (0.55, 0))[: 1 + (shape == "ring")]:
            draw.ellipse((*(middle - share * radius), *(middle + share * radius)), fill=fill)
    else:
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = middle + _corners(shape) @ turn.T * radius
        draw.polygon([tuple(corner) for corner in corners], fill=255)
    small = np.asarray(tile.reduce(_OVERSAMPLING), np.float32) / 255
    return _place(small, left, top)


def _corners(shape: str) -> np.ndarray:
    """Return the corners of a shape in the unit circle, of shape (number of corners, 2)."""
    match shape:
        case "square":
            angles, radii = (np.arange(4) + 0.5) / 4, np.ones(4)
        case "triangle":
            angles, radii = np.arange(3) / 3 - 0.25, np.ones(3)
        case "star":
            angles, radii = np.arange(10) / 10 - 0.25, np.tile([1, 0.45], 5)
        case _:
            arm = 0.33
            quarter = 0.95 * np.array([(1, arm), (arm, arm), (arm, 1)])
            turn = np.array([[0, 1], [-1, 0]])
            return np.concatenate([quarter @ np.linalg.matrix_power(turn, count) for count in range(4)])
    angles = 2 * math.pi * angles
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _draw_character(character: str, height: float, center: np.ndarray) -> np.ndarray:
    """Draw an upright letter or digit, and return its coverage, float32 of shape (128, 128)."""
    glyph = _glyph(character)
    scale = height / glyph.height
    size = max(1, round(glyph.width * scale)), max(1, round(height))
    small = np.asarray(glyph.resize(size, Image.Resampling.BOX), np.float32) / 255
    left, top = (round(float(middle - side / 2)) for middle, side in zip(center, size, strict=True))
    return _place(small, left, top)


@cache
def _glyph(character: str) -> Image.Image:
    font = ImageFont.load_default(_FONT_SIZE)
    glyph = Image.new("L", (2 * _FONT_SIZE, 2 * _FONT_SIZE))
    ImageDraw.Draw(glyph).text((_FONT_SIZE, _FONT_SIZE), character, 255, font, anchor="mm", stroke_width=2)
    return glyph.crop(glyph.getbbox())


def _place(tile: np.ndarray, left: int, top: int) -> np.ndarray:
    """Place a tile on an empty scene and cut off what lies outside."""
    scene = np.zeros((SIZE, SIZE), np.float32)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + tile.shape[1], SIZE), min(top + tile.shape[0], SIZE)
    scene[y1:y2, x1:x2] = tile[y1 - top : y2 - top, x1 - left : x2 - left]
    return scene
