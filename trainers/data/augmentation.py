"""Pictures that are flipped and cropped by chance, with everything that knows places in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ...processing_lyrics import VisualObjects

LEAST_LEFT = 0.3  # share of an object that a crop must leave, or it is gone


@dataclass(frozen=True)
class Augmentation:
    """How often a picture is flipped and cropped. Both move boxes; neither changes words such as "left".

    Attributes:
        flip: probability of a horizontal flip.
        crop: probability of a crop, which always leaves the boxes that a conversation speaks of whole.
        least_area: of a crop, as a share of the picture.
    """

    flip: float = 0.0
    crop: float = 0.0
    least_area: float = 0.5

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "least_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")

    def draw(self, boxes: Sequence[Sequence[float]], random: np.random.Generator) -> Move:
        """What happens to a picture whose `boxes` (xyxy in [0, 1]) are spoken of."""
        flips, crops = random.random() < self.flip, random.random() < self.crop
        window = (0.0, 0.0, 1.0, 1.0)
        if crops:
            window = self._draw_window(boxes, random)
        return Move(flips, window)

    def _draw_window(
        self, boxes: Sequence[Sequence[float]], random: np.random.Generator
    ) -> tuple[float, float, float, float]:
        width, height = random.uniform(self.least_area**0.5, 1.0, size=2)
        x, y = random.random() * (1 - width), random.random() * (1 - height)
        corners = np.array([[x, y, x + width, y + height], *boxes])
        x1, y1, x2, y2 = *corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)
        return max(0.0, float(x1)), max(0.0, float(y1)), min(1.0, float(x2)), min(1.0, float(y2))


@dataclass(frozen=True)
class Move:
    """A flip after a crop.

    Attributes:
        flips: whether left and right change places.
        window: what is left of the picture, xyxy in [0, 1].
    """

    flips: bool
    window: tuple[float, float, float, float]

    @property
    def changes(self) -> bool:
        """Whether anything happens."""
        return self.flips or self.window != (0.0, 0.0, 1.0, 1.0)

    def picture(self, picture: Image.Image) -> Image.Image:
        """The picture afterwards."""
        if self.window != (0.0, 0.0, 1.0, 1.0):
            x1, y1, x2, y2 = self._pixels(picture.size)
            picture = picture.crop((x1, y1, x2, y2))
        return ImageOps.mirror(picture) if self.flips else picture

    def boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(R, 4) xyxy in [0, 1] of the picture of `size` before -> of the picture afterwards, cut to it."""
        x1, y1, x2, y2 = (pixel / side for pixel, side in zip(self._pixels(size), size * 2, strict=True))
        boxes = (np.asarray(boxes, np.float64).reshape(-1, 4) - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
        boxes = boxes.clip(0.0, 1.0)
        return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1) if self.flips else boxes

    def objects(self, objects: VisualObjects, size: tuple[int, int]) -> VisualObjects:
        """Stored objects afterwards: those that are left, with their boxes moved, also in their region features.

        Raises:
            ValueError: when region features do not end with the box of their object.
        """
        if not self.changes or not len(objects):
            return objects
        features = objects.region_features
        if len(features) != len(objects) or not np.allclose(features[:, -4:], objects.boxes, atol=2e-3):
            raise ValueError(
                "Stored objects whose region features are not one for each box cannot be moved with their picture: "
                "refine on line, or train without flips and crops."
            )
        moved = self.boxes(objects.boxes, size)
        area = _areas(objects.boxes) / max(_areas(np.array([self.window]))[0], 1e-9)
        kept = _areas(moved) >= LEAST_LEFT * np.minimum(area, 1.0)
        features = features[kept].copy()
        features[:, -4:] = moved[kept]
        labels = [label for label, keep in zip(objects.labels, kept, strict=True) if keep]
        return VisualObjects(labels, moved[kept], objects.scores[kept], features, tags=objects.tags)

    def _pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The window in whole pixels."""
        width, height = size
        x1, y1 = int(self.window[0] * width), int(self.window[1] * height)
        x2, y2 = round(self.window[2] * width), round(self.window[3] * height)
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
