"""What is where in a scene, cell by cell: far more to learn from than a few boxes or words."""

from __future__ import annotations

import numpy as np

from ..configs import REFINED_VIEW
from ..world.scenes import CHARACTERS, COLORS, SHAPES, SIZES, Scene

GRID = REFINED_VIEW // 8
NOTHING = -1
_MARGIN = 0.015  # around a character, which is thin


def name_cells(scene: Scene) -> dict[str, np.ndarray]:
    """Numbers of the color, size, shape and character in the middle of each of (16, 16) cells; `NOTHING` elsewhere.

    A character is where its box is.
    """
    step = scene.image.width // GRID
    y, x = np.mgrid[:GRID, :GRID] * step + step // 2
    cells = {kind: np.full((GRID, GRID), NOTHING) for kind in ("color", "size", "shape", "character")}
    for thing in scene.objects:
        visible = thing.mask[y, x]
        cells["color"][visible] = list(COLORS).index(thing.color)
        cells["size"][visible] = list(SIZES).index(thing.size)
        cells["shape"][visible] = SHAPES.index(thing.shape)
        if thing.character is not None and thing.character_box is not None:
            x1, y1, x2, y2 = (value * scene.image.width for value in thing.character_box)
            margin = _MARGIN * scene.image.width
            inside = (x > x1 - margin) & (x < x2 + margin) & (y > y1 - margin) & (y < y2 + margin)
            cells["character"][inside] = CHARACTERS.index(thing.character)
    return cells
