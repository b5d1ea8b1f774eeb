"""Drawn images of colored shapes with captions, conversations and exact objects, to try training with."""

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
    """Captions: `count` rows of `image`, `caption` and `visual_objects`, each a function of seed and index.

    The region feature of an object is its crop, scaled down to 2 x 2 pixels in [-1, 1], and its box: 16 numbers.

    Args:
        count: int, number of rows.
        seed: int, seed of the drawings.
        size: int, width and height of an image in pixels.
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
        """Draw a shape into a cell of the grid, and return its name and its box, xyxy in [0, 1]."""
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


class ShapeChats(ShapeRows):
    """Conversations: `count` rows of `images`, `messages` and `visual_objects` about the same images.

    A question asks what there is, how many there are, or where something is, which is answered with a box.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        objects, random = row["visual_objects"], np.random.default_rng((self.seed, index, 1))
        kind, place = random.choice(("what", "how many", "where")), int(random.integers(len(objects)))
        answer: list[dict[str, Any]] = [{"type": "text", "text": row["caption"]}]
        question = "What is there?"
        if kind == "how many":
            question, answer = "How many are there?", [{"type": "text", "text": str(len(objects))}]
        elif kind == "where":
            question = f"Where is the {objects.labels[place]}?"
            answer = [{"type": "box", "box": objects.boxes[place].tolist(), "image": 0}]
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": answer},
        ]
        return {"images": [row["image"]], "messages": messages, "visual_objects": [objects]}


class ShapePairs(ShapeRows):
    """Preferences: `count` rows of `images`, `prompt`, `chosen` and `rejected` about whether a shape is there."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        random, there = np.random.default_rng((self.seed, index, 2)), set(row["visual_objects"].labels)
        every = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
        asked = str(random.choice(sorted(there) if random.random() < 0.5 else sorted(set(every) - there)))
        right, wrong = ("Yes.", "No.") if asked in there else ("No.", "Yes.")
        return {
            "images": [row["image"]],
            "prompt": [{"role": "user", "content": f"Is there a {asked}?"}],
            "chosen": [{"role": "assistant", "content": right}],
            "rejected": [{"role": "assistant", "content": wrong}],
        }
