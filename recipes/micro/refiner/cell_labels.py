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
    """Return color, size, shape and character at the center of each cell of a square scene.

    Numbers are indices of `COLORS`, `SIZES`, `SHAPES` and `CHARACTERS`, and `IGNORED` elsewhere. A character covers
    its whole box.

    Returns:
        For each of the four, an int array of shape (16, 16).
    """
    side = scene.size[0]
    step = side // GRID_SIZE
    y, x = np.mgrid[:GRID_SIZE, :GRID_SIZE] * step + step // 2
    cells = {kind: np.full((GRID_SIZE, GRID_SIZE), IGNORED) for kind in ("color", "size", "shape", "character")}
    for thing in scene.objects:
        visible = thing.mask[y, x]
        cells["color"][visible] = COLORS.index(thing.color)
        cells["size"][visible] = SIZES.index(thing.size)
        cells["shape"][visible] = SHAPES.index(thing.shape)
        if thing.character is not None and thing.character_box is not None:
            x1, y1, x2, y2 = (value * side for value in thing.character_box)
            margin = _CHARACTER_MARGIN * side
            inside = (x > x1 - margin) & (x < x2 + margin) & (y > y1 - margin) & (y < y2 + margin)
            cells["character"][inside] = CHARACTERS.index(thing.character)
    return cells
