"""Dense labels of scenes: what each cell of a grid shows. They teach far more than a few boxes or words.

Backbone and segmenter are trained with them.
"""

from __future__ import annotations

import numpy as np

from ..configs import REFINER_IMAGE_SIZE
from ..world.objects import CHARACTERS, COLORS, SHAPES, SIZES, Scene

GRID_SIZE = REFINER_IMAGE_SIZE // 8
IGNORED = -1
_CHARACTER_MARGIN = 0.015  # around the box of a character, whose lines are thin


def label_cells(scene: Scene) -> dict[str, np.ndarray]:
    """Return color, size, shape and character at the center of each cell of a scene, 16 across and 16 down.

    Numbers are indices of `COLORS`, `SIZES`, `SHAPES` and `CHARACTERS`, and `IGNORED` elsewhere. A character covers
    its whole box.

    Returns:
        For each of the four, an int array of shape (16, 16).
    """
    width, height = scene.size
    y, x = cell_centers(scene)
    cells = {kind: np.full((GRID_SIZE, GRID_SIZE), IGNORED) for kind in ("color", "size", "shape", "character")}
    for thing in scene.objects:
        visible = thing.mask[y, x]
        cells["color"][visible] = COLORS.index(thing.color)
        cells["size"][visible] = SIZES.index(thing.size)
        cells["shape"][visible] = SHAPES.index(thing.shape)
        if thing.character is not None and thing.character_box is not None:
            x1, y1, x2, y2 = np.array(thing.character_box) * (width, height, width, height)
            margin = _CHARACTER_MARGIN * min(width, height)
            inside = (x > x1 - margin) & (x < x2 + margin) & (y > y1 - margin) & (y < y2 + margin)
            cells["character"][inside] = CHARACTERS.index(thing.character)
    return cells


def locate_cells(scene: Scene) -> np.ndarray:
    """Return the box of the object at the center of each cell, float32 of shape (16, 16, 4), or NaN without one."""
    y, x = cell_centers(scene)
    boxes = np.full((GRID_SIZE, GRID_SIZE, 4), np.nan, np.float32)
    for thing in scene.objects:
        boxes[thing.mask[y, x]] = thing.box
    return boxes


def cell_centers(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column, in pixels, of the center of each cell."""
    width, height = scene.size
    rows, columns = np.mgrid[:GRID_SIZE, :GRID_SIZE] + 0.5
    return (rows * height / GRID_SIZE).astype(int), (columns * width / GRID_SIZE).astype(int)
