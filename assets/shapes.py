"""Pictures of coloured shapes with captions and exact objects, drawn on the spot: data to try training with."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..processing_lyrics import VisualObjects

COLORS = {
    "red": (200, 50, 45),
    "blue": (60, 90, 200),
    "green": (60, 150, 70),
    "yellow": (235, 200, 60),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle")
REGION_WIDTH = 16  # a crop of 2 x 2 pixels, and the box
_GRID = 3  # at most one shape in each of 3 x 3 cells


class ShapeRows:
    """A data set of `count` rows (`image`, `caption`, `visual_objects`), each a function of seed and index.

    The region feature of an object is its crop, scaled down to 2 x 2 pixels in [-1, 1], and its box: 16 numbers.
    """

    def __init__(self, count: int, seed: int = 0, size: int = 96) -> None:
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"Row {index} of {self.count}.")
        random = np.random.default_rng((self.seed, index))
        picture = Image.new("RGB", (self.size, self.size), tuple(int(value) for value in random.integers(200, 256, 3)))
        cells = random.choice(_GRID**2, size=int(random.integers(1, 4)), replace=False)
        labels, boxes = zip(*(self._draw(picture, int(cell), random) for cell in cells), strict=True)
        features = [[*self._crop(picture, box), *box] for box in boxes]
        objects = VisualObjects(list(labels), np.array(boxes), np.ones(len(labels)), np.array(features, np.float32))
        return {"image": picture, "caption": " and ".join(f"a {label}" for label in labels), "visual_objects": objects}

    def _draw(self, picture: Image.Image, cell: int, random: np.random.Generator) -> tuple[str, list[float]]:
        """Draw a shape into a cell; returns its name and its box, xyxy in [0, 1]."""
        color, shape = random.choice(list(COLORS)), random.choice(SHAPES)
        side = self.size / _GRID
        extent = side * random.uniform(0.5, 0.95)
        x, y = ((cell % _GRID) + random.random(), (cell // _GRID) + random.random())
        left, top = (np.clip(place * side - extent / 2, 1, self.size - extent - 2) for place in (x, y))
        box = [round(float(value)) for value in (left, top, left + extent, top + extent)]
        draw = ImageDraw.Draw(picture)
        match shape:
            case "circle":
                draw.ellipse(box, fill=COLORS[color])
            case "square":
                draw.rectangle(box, fill=COLORS[color])
            case _:
                draw.polygon([((box[0] + box[2]) / 2, box[1]), (box[2], box[3]), (box[0], box[3])], fill=COLORS[color])
        return f"{color} {shape}", [value / self.size for value in box]

    def _crop(self, picture: Image.Image, box: list[float]) -> np.ndarray:
        pixels = [round(value * self.size) for value in box]
        crop = picture.crop(tuple(pixels)).resize((2, 2), Image.Resampling.BOX)  # pyright: ignore[reportArgumentType]
        return np.asarray(crop, np.float32).flatten() / 127.5 - 1
