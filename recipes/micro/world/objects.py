"""What a scene is: its objects, the words for them, and its picture. Every world that draws scenes shares these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image

Split = Literal["train", "validation", "test"]
Box = tuple[float, float, float, float]

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "medium", "large")
CHARACTERS = "ACHTX247"
HELD_OUT = frozenset(zip(COLORS[2:], SHAPES, strict=True))  # (color, shape) that only test scenes show

MIN_VISIBLE_IN_CUT = 0.4  # share of an object that a cut-out of its scene must show for it to count


@dataclass(frozen=True, eq=False)
class SceneObject:
    """Object of a scene.

    Attributes:
        color: word of `COLORS`.
        shape: word of `SHAPES`.
        size: word of `SIZES`.
        box: xyxy in [0, 1], bounding box of the visible part.
        mask: bool array of the size of the scene, (height, width), the visible part.
        character: letter or digit on the object, or `None`.
        character_box: xyxy in [0, 1], bounding box of the character, or `None`.
    """

    color: str
    shape: str
    size: str
    box: Box
    mask: np.ndarray
    character: str | None = None
    character_box: Box | None = None

    @property
    def area(self) -> int:
        """Number of visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True, eq=False)
class Scene:
    """Picture with its objects. It is drawn when it is first asked for, since some steps need the objects alone.

    Attributes:
        size: width and height in pixels.
        objects: objects of the scene.
        draw: function that draws the picture.
    """

    size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    draw: Callable[[], Image.Image]

    @cached_property
    def image(self) -> Image.Image:
        """RGB picture."""
        return self.draw()

    def cut(self, left: int, top: int, width: int, height: int) -> Scene:
        """Return a part of the scene. Objects of which it shows less than 40 % are background there."""
        area = (left, top, left + width, top + height)
        parts = (_cut_object(thing, area, self.size) for thing in self.objects)
        return Scene(
            (width, height),
            tuple(thing for thing in parts if thing is not None),
            lambda: self.image.crop(area),
        )


def bounding_box(mask: np.ndarray) -> Box:
    """Return the xyxy box in [0, 1] around the true values of an array of shape (height, width)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def _cut_object(thing: SceneObject, area: tuple[int, int, int, int], size: tuple[int, int]) -> SceneObject | None:
    """Return an object as a part of its scene shows it, or `None` if that shows too little of it."""
    x1, y1, x2, y2 = area
    mask = thing.mask[y1:y2, x1:x2]
    if mask.sum() < MIN_VISIBLE_IN_CUT * thing.area:
        return None
    character_box = thing.character_box and _cut_box(thing.character_box, area, size)
    character = thing.character if character_box else None
    box = bounding_box(mask)
    return replace(thing, box=box, mask=mask, character=character, character_box=character_box)


def _cut_box(box: Box, area: tuple[int, int, int, int], size: tuple[int, int]) -> Box | None:
    """Return a box in the coordinates of a part of the scene, or `None` if it is not wholly inside."""
    x1, y1, x2, y2 = area
    scale, origin = np.array(size * 2), np.array((x1, y1, x1, y1))
    left, top, right, bottom = (np.array(box) * scale - origin) / np.array((x2 - x1, y2 - y1) * 2)
    inside = min(left, top) >= 0 and max(right, bottom) <= 1
    return (float(left), float(top), float(right), float(bottom)) if inside else None
