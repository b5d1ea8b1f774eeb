"""Random flips and crops of images, together with the boxes and stored objects in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ...processing_lyrics import VisualObjects
from ..common.data_arguments import require_shares

LEAST_LEFT = 0.3  # share of an object that a crop must keep; otherwise the object is dropped

WHOLE = (0.0, 0.0, 1.0, 1.0)  # the window of an image that is not cropped


@dataclass(frozen=True)
class Augmentation:
    """Probabilities of flips and crops. Both move boxes; neither changes words such as "left".

    Attributes:
        flip: float in [0, 1], probability of a horizontal flip.
        crop: float in [0, 1], probability of a crop, which keeps the boxes that a conversation mentions whole.
        least_area: float in [0, 1], smallest area of a crop, as a share of the image.
    """

    flip: float = 0.0
    crop: float = 0.0
    least_area: float = 0.5

    def __post_init__(self) -> None:
        require_shares(self, "flip", "crop", "least_area")

    def draw(self, boxes: Sequence[Sequence[float]], random: np.random.Generator) -> Move:
        """Draw what happens to an image.

        Args:
            boxes: sequence of xyxy in [0, 1], boxes that the conversation mentions.
            random: generator of the row.
        """
        flips, crops = random.random() < self.flip, random.random() < self.crop
        return Move(flips, self._draw_window(boxes, random) if crops else WHOLE)

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
    """A crop, and a flip after it.

    Attributes:
        flips: bool, whether left and right change places.
        window: xyxy in [0, 1], part of the image that the crop keeps.
    """

    flips: bool
    window: tuple[float, float, float, float]

    @property
    def changes(self) -> bool:
        """Return whether the image changes."""
        return self.flips or self.window != WHOLE

    def picture(self, picture: Image.Image) -> Image.Image:
        """Return the moved image."""
        if self.window != WHOLE:
            picture = picture.crop(self._pixels(picture.size))
        return ImageOps.mirror(picture) if self.flips else picture

    def boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return moved boxes, cut to the moved image.

        Args:
            boxes: array of shape (R, 4), xyxy in [0, 1].
            size: width and height of the image before.

        Returns:
            Array of shape (R, 4), xyxy in [0, 1] of the moved image.
        """
        x1, y1, x2, y2 = (pixel / side for pixel, side in zip(self._pixels(size), size * 2, strict=True))
        boxes = (np.asarray(boxes, np.float64).reshape(-1, 4) - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
        boxes = boxes.clip(0.0, 1.0)
        return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1) if self.flips else boxes

    def objects(self, objects: VisualObjects, size: tuple[int, int]) -> VisualObjects:
        """Return the stored objects that are left, with moved boxes, also in their region features.

        Args:
            objects: `VisualObjects` of the image.
            size: width and height of the image before.

        Raises:
            ValueError: when region features do not end with the box of their object.
        """
        if not self.changes or not len(objects):
            return objects
        features = objects.region_features
        if len(features) != len(objects) or not np.allclose(features[:, -4:], objects.boxes, atol=2e-3):
            raise ValueError(
                "Stored objects whose region features are not one for each box cannot be moved with their image: "
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
        """Return the window in whole pixels."""
        width, height = size
        x1, y1 = int(self.window[0] * width), int(self.window[1] * height)
        x2, y2 = round(self.window[2] * width), round(self.window[3] * height)
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
