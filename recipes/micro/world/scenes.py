"""Synthetic scenes of shapes. A scene depends on its split and its number only.

A scene holds up to 9 objects of six shapes, eight colors and three sizes. They are turned, may overlap, may have
outlines, and lie on plain or textured grounds of any color. Some carry a letter or a digit. Pictures have all aspect
ratios from 1:3 to 3:1. Boxes and masks cover the visible part of an object. Some combinations of shape and color appear
in test scenes only (`HELD_OUT`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .appearance import Ground, choose_color, choose_contrast, choose_ground, light, photograph
from .objects import CHARACTERS, COLORS, HELD_OUT, SHAPES, SIZES, Scene, SceneObject, Split, bounding_box
from .shapes import cover_character, cover_shape

Random = np.random.Generator

SIDE = 128  # pixels of the short side
_DIAMETERS = {"small": (14, 19), "medium": (26, 33), "large": (42, 53)}  # range in pixels, of 128
_MAX_OBJECTS = 9
_SQUARE_PROBABILITY = 0.6
_MAX_ASPECT_RATIO = 3.0

_SPLIT_SEEDS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}
_CHARACTER_SHAPES = ("circle", "square", "triangle", "star")  # a cross and a ring have no room for a character
_CHARACTER_SIZES = ("medium", "large")
_CHARACTER_PROBABILITY = 0.5
_PLACEMENT_ATTEMPTS = 20
_COLOR_ATTEMPTS = 12
_MIN_VISIBLE = 0.75  # share of an object's pixels
_OUTLINE_PROBABILITY = 0.25
_SHADE_PROBABILITY = 0.25
_INK_THRESHOLD = 0.2  # coverage from which a pixel belongs to a character
# Some colors and shapes are more frequent: "popular" negatives of existence questions need frequent names.
_COLOR_WEIGHTS = np.array([4, 2, 3, 3, 2, 4, 2, 2]) / 22
_SHAPE_WEIGHTS = np.array([4, 4, 3, 3, 2, 2]) / 18


def draw_scene(split: Split, number: int) -> Scene:
    """Draw scene `number` of a split, 128 pixels high or wide at its short side."""
    random = np.random.default_rng((_SPLIT_SEEDS[split], number))
    size = _choose_size(random)
    ground = choose_ground(random)
    drawn: list[_Layer] = []
    for _ in range(int(random.integers(1, _MAX_OBJECTS + 1))):
        for _ in range(_PLACEMENT_ATTEMPTS):
            candidate = _draw_object(random, split, size, ground)
            if not any(layer.is_hidden_by(candidate) for layer in drawn):
                for layer in drawn:
                    layer.visible &= ~candidate.alpha
                drawn.append(candidate)
                break

    def draw() -> Image.Image:
        own_random = np.random.default_rng((_SPLIT_SEEDS[split], number, 1))
        canvas = ground.paint(*size, own_random)
        for layer in drawn:
            layer.paste(canvas)
        return photograph(light(canvas, own_random), own_random)

    return Scene(size, tuple(layer.to_object() for layer in drawn), draw)


def draw_test_scene(number: int) -> Scene:
    """Draw scene `number` of the test split."""
    return draw_scene("test", number)


def draw_square(split: Split, number: int, empty: bool = True) -> Scene:
    """Draw a square scene: scene `number` of a split, or a part of it where that is not square.

    The refiner looks at other pictures in square parts, which cut objects.

    Args:
        split: split of the scene.
        number: number of the scene.
        empty: bool, whether the part may show no object.
    """
    scene = draw_scene(split, number)
    width, height = scene.size
    if width == height:
        return scene
    place = int(np.random.default_rng((_SPLIT_SEEDS[split], number, 2)).integers(max(width, height) - SIDE + 1))
    part = scene.cut(place, 0, SIDE, SIDE) if width > height else scene.cut(0, place, SIDE, SIDE)
    return part if part.objects or empty else _cut_around(scene, scene.objects[0])


def _cut_around(scene: Scene, thing: SceneObject) -> Scene:
    """Return the square part of a scene whose middle is nearest to an object's."""
    ends = np.array(scene.size) - SIDE
    center = (np.array(thing.box[:2]) + thing.box[2:]) / 2 * scene.size
    left, top = np.clip(center - SIDE / 2, 0, ends).astype(int).tolist()
    return scene.cut(left, top, SIDE, SIDE)


def _choose_size(random: Random) -> tuple[int, int]:
    """Choose width and height in pixels."""
    if random.random() < _SQUARE_PROBABILITY:
        return SIDE, SIDE
    long = round(SIDE * math.exp(random.uniform(0, math.log(_MAX_ASPECT_RATIO))))
    return (long, SIDE) if random.random() < 0.6 else (SIDE, long)


@dataclass(eq=False)
class _Layer:
    """Object while its scene is drawn.

    Attributes:
        words: its color, shape and size.
        paints: coverage of the scene, (height, width), and color of what is painted, one over the other. A color is an
            array of shape (3,), or of (height, width, 3).
        alpha: bool array of shape (height, width), what the object covers.
        visible: bool array, the part of it that no later object covers.
        character: letter or digit, or `None`.
        ink: bool array, what the character covers, or `None`.
    """

    words: tuple[str, str, str]
    paints: list[tuple[np.ndarray, np.ndarray]]
    alpha: np.ndarray = field(init=False)
    visible: np.ndarray = field(init=False)
    character: str | None = None
    ink: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.alpha = self.paints[0][0] > 0.5
        self.visible = self.alpha.copy()

    def is_hidden_by(self, other: _Layer) -> bool:
        """Return whether `other` would cover too much of this object, or any part of its character."""
        if self.ink is not None and (other.alpha & self.ink).any():
            return True
        return bool((self.visible & ~other.alpha).sum() < _MIN_VISIBLE * self.alpha.sum())

    def paste(self, canvas: np.ndarray) -> None:
        """Draw the object and its character over a canvas."""
        for coverage, rgb in self.paints:
            rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            color = rgb.astype(np.float32) if rgb.ndim == 1 else rgb[part].astype(np.float32)
            canvas[part] += coverage[part][..., None] * (color - canvas[part])

    def to_object(self) -> SceneObject:
        """Return the finished object."""
        character_box = None if self.ink is None else bounding_box(self.ink)
        return SceneObject(*self.words, bounding_box(self.visible), self.visible, self.character, character_box)


def _draw_object(random: Random, split: Split, scene_size: tuple[int, int], ground: Ground) -> _Layer:
    color, shape, rgb = _choose_look(random, split, ground)
    size = str(random.choice(SIZES))
    extent = random.uniform(*_DIAMETERS[size])
    center = random.uniform(extent / 2 + 1, np.array(scene_size) - extent / 2 - 1)
    outline = random.uniform(1, 1 + extent / 25) if random.random() < _OUTLINE_PROBABILITY or ground.hides(rgb) else 0
    body, line = (one.on(*scene_size) for one in cover_shape(shape, extent, center, outline, random))
    layer = _Layer((color, shape, size), [(body, _shade(rgb, scene_size, random))])
    if outline:
        layer.paints.append((line, choose_contrast(rgb, random)))
    if size in _CHARACTER_SIZES and shape in _CHARACTER_SHAPES and random.random() < _CHARACTER_PROBABILITY:
        layer.character = str(random.choice(list(CHARACTERS)))
        ink = cover_character(layer.character, random.uniform(0.45, 0.6) * extent, center, random).on(*scene_size)
        layer.ink = ink > _INK_THRESHOLD
        layer.paints.append((ink, choose_contrast(rgb, random)))
    return layer


def _choose_look(random: Random, split: Split, ground: Ground) -> tuple[str, str, np.ndarray]:
    """Choose color word, shape and RGB color of an object, which can be told from the ground if possible."""
    while True:
        color, rgb = "", np.zeros(3)
        for _ in range(_COLOR_ATTEMPTS):
            color = str(random.choice(COLORS, p=_COLOR_WEIGHTS))
            rgb = choose_color(color, random)
            if not ground.hides(rgb):
                break
        shape = str(random.choice(SHAPES, p=_SHAPE_WEIGHTS))
        if split == "test" or (color, shape) not in HELD_OUT:
            return color, shape, rgb


def _shade(rgb: np.ndarray, scene_size: tuple[int, int], random: Random) -> np.ndarray:
    """Return the color of an object, sometimes darker to one side, of shape (3,) or (height, width, 3)."""
    if random.random() >= _SHADE_PROBABILITY:
        return rgb
    width, height = scene_size
    y, x = np.mgrid[:height, :width] / SIDE
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0, 0.3)
    share = strength * (x * math.cos(angle) + y * math.sin(angle))
    return rgb * (1 - (share - share.min()).clip(0, 0.3))[..., None]
