"""A world of shapes to train a small model on: endless scenes, each a function of its split and number alone.

A scene holds 2 to 9 objects of six shapes, eight colors and three sizes, turned and overlapping, on plain and
textured grounds; some bear a letter or a digit. Boxes and masks are those of what is visible. Training and validation
scenes never show some combinations of shape and color; test scenes do.
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
SIZES = {"small": (15, 19), "medium": (26, 32), "large": (42, 52)}  # pixels of a scene of 128
CHARACTERS = "ACHTX247"
BEARERS = ("circle", "square", "triangle", "star")  # of characters: solid in their middle
BEARING_SIZES = ("medium", "large")
HELD_OUT = frozenset(zip(list(COLORS)[2:], SHAPES, strict=True))  # (color, shape)

_SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}
_CHARACTER_SHARE = 0.5
_LEAST_VISIBLE = 0.75
_MOST_TURNED = math.pi / 6
_OVERSAMPLING = 4
_FONT_SIZE = 64
# Some colors and shapes are more frequent, so that there are popular ones to ask for in vain.
_COLOR_WEIGHTS = np.array([4, 2, 3, 3, 2, 4, 2, 2]) / 22
_SHAPE_WEIGHTS = np.array([4, 4, 3, 3, 2, 2]) / 18


@dataclass(frozen=True, eq=False)
class SceneObject:
    """An object of a scene.

    Attributes:
        color, shape, size: words.
        box: xyxy in [0, 1] of what is visible.
        mask: (128, 128) bool, what is visible.
        character: the letter or digit that it bears, or `None`.
        character_box: xyxy in [0, 1] of that.
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
        """Visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture (128 x 128, RGB) and its objects."""

    image: Image.Image
    objects: tuple[SceneObject, ...]


def draw_scene(split: Split, number: int) -> Scene:
    """Scene `number` of a split."""
    random = np.random.default_rng((_SPLITS[split], number))
    canvas = _draw_ground(random)
    drawn: list[_Drawn] = []
    for _ in range(int(random.integers(2, 10))):
        for _ in range(20):  # attempts to find a place
            candidate = _draw_object(random, split)
            if not any(one.covered_by(candidate) for one in drawn):
                for one in drawn:
                    one.visible &= ~candidate.alpha
                candidate.paste(canvas)
                drawn.append(candidate)
                break
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    return Scene(image, tuple(one.as_object() for one in drawn))


def _draw_ground(random: np.random.Generator) -> np.ndarray:
    """(128, 128, 3) float32: plain, striped, chequered, shaded or noisy, in two pale or dark greyish colors."""
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


class _Drawn:
    """An object while its scene is drawn: where it is, what of it is visible, and how to paste it."""

    def __init__(self, words: tuple[str, str, str], soft: np.ndarray, rgb: np.ndarray) -> None:
        self.words, self.soft, self.rgb = words, soft, rgb
        self.alpha = soft > 0.5
        self.visible = self.alpha.copy()
        self.character: str | None = None
        self.ink: np.ndarray | None = None
        self.ink_rgb = np.zeros(3)

    def covered_by(self, other: _Drawn) -> bool:
        """Whether another object would cover too much of it, or anything of its character."""
        if self.ink is not None and (other.alpha & (self.ink > 0.2)).any():
            return True
        return bool((self.visible & ~other.alpha).sum() < _LEAST_VISIBLE * self.alpha.sum())

    def paste(self, canvas: np.ndarray) -> None:
        """Draw it over what is there."""
        _blend(canvas, self.soft, self.rgb)
        if self.ink is not None:
            _blend(canvas, self.ink, self.ink_rgb)

    def as_object(self) -> SceneObject:
        """What is known of it once the scene is complete."""
        character_box = None if self.ink is None else _box_of(self.ink > 0.2)
        return SceneObject(*self.words, _box_of(self.visible), self.visible, self.character, character_box)


def _blend(canvas: np.ndarray, coverage: np.ndarray, rgb: np.ndarray) -> None:
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    canvas[part] += coverage[part][..., None] * (rgb.astype(np.float32) - canvas[part])


def _box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    x1, y1, x2, y2 = (float(edge) / SIZE for edge in edges)
    return x1, y1, x2, y2


def _draw_object(random: np.random.Generator, split: Split) -> _Drawn:
    while True:
        color = str(random.choice(list(COLORS), p=_COLOR_WEIGHTS))
        shape = str(random.choice(SHAPES, p=_SHAPE_WEIGHTS))
        if split == "test" or (color, shape) not in HELD_OUT:
            break
    size = str(random.choice(list(SIZES)))
    extent = random.uniform(*SIZES[size])
    center = random.uniform(extent / 2 + 1, SIZE - extent / 2 - 1, 2)
    soft = _draw_shape(shape, extent, center, random.uniform(-_MOST_TURNED, _MOST_TURNED))
    rgb = np.array(COLORS[color]) + random.uniform(-12, 12, 3)
    drawn = _Drawn((color, shape, size), soft, rgb)
    if size in BEARING_SIZES and shape in BEARERS and random.random() < _CHARACTER_SHARE:
        drawn.character = str(random.choice(list(CHARACTERS)))
        drawn.ink = _draw_character(drawn.character, 0.55 * extent, center)
        drawn.ink_rgb = np.full(3, 10.0) if rgb @ [0.3, 0.6, 0.1] > 125 else np.full(3, 250.0)
    return drawn


def _draw_shape(shape: str, extent: float, center: np.ndarray, angle: float) -> np.ndarray:
    """(128, 128) float32 coverage of a shape that fits into a circle of diameter `extent`."""
    left, top = (int(value) for value in center - extent / 2 - 1)
    side = int(extent) + 4
    tile = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(tile)
    middle = (center - (left, top)) * _OVERSAMPLING
    radius = extent / 2 * _OVERSAMPLING
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def disc(place: np.ndarray, size: float, fill: int) -> None:
        x, y = middle + turn @ place * radius
        draw.ellipse((x - size * radius, y - size * radius, x + size * radius, y + size * radius), fill=fill)

    match shape:
        case "circle":
            disc(np.zeros(2), 1, 255)
        case "ring":
            disc(np.zeros(2), 1, 255)
            disc(np.zeros(2), 0.55, 0)
        case _:
            corners = middle + _corners(shape) @ turn.T * radius
            draw.polygon([tuple(corner) for corner in corners], fill=255)
    small = np.asarray(tile.reduce(_OVERSAMPLING), np.float32) / 255
    return _place(small, left, top)


def _corners(shape: str) -> np.ndarray:
    """(corners, 2) of a shape in the unit circle."""
    match shape:
        case "square":
            angles, radii = (np.arange(4) + 0.5) / 4, np.ones(4)
        case "triangle":
            angles, radii = np.arange(3) / 3 - 0.25, np.ones(3)
        case "star":
            angles, radii = np.arange(10) / 10 - 0.25, np.tile([1, 0.45], 5)
        case _:
            thick = 0.33
            quarter = 0.95 * np.array([(1, thick), (thick, thick), (thick, 1)])
            turn = np.array([[0, 1], [-1, 0]])
            return np.concatenate([quarter @ np.linalg.matrix_power(turn, count) for count in range(4)])
    angles = 2 * math.pi * angles
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _draw_character(character: str, height: float, center: np.ndarray) -> np.ndarray:
    """(128, 128) float32 coverage of an upright letter or digit."""
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
    """A tile on an empty scene; what lies outside is cut off."""
    scene = np.zeros((SIZE, SIZE), np.float32)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + tile.shape[1], SIZE), min(top + tile.shape[0], SIZE)
    scene[y1:y2, x1:x2] = tile[y1 - top : y2 - top, x1 - left : x2 - left]
    return scene
