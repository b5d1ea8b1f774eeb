"""Objects as plain text: the names of their colors, read from region features by a linear map, labels and boxes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ....processing_lyrics import VisualObjects
from ....processing_lyrics.spatial_text import format_objects
from ....trainers.rewards import box_iou
from ..world.cases import MIN_IOU
from ..world.objects import COLORS, SHAPES, Scene

_BOX_SIZE = 4  # the last numbers of a region feature are the box
_DECAY = 1e-3  # of the linear map


class ObjectWriter:
    """Writer of objects as text, such as `red star: [0.461, 0.391, 0.672, 0.609]; C: [...]`.

    Args:
        scenes: scenes with the objects that the refiner found in them, by which the map from region features to colors
            is fitted, with least squares.
    """

    def __init__(self, scenes: Iterable[tuple[Scene, VisualObjects]]) -> None:
        pairs = [pair for scene, objects in scenes for pair in _colored(scene, objects)]
        if not pairs:
            raise ValueError("No object of these scenes was found, so that colors cannot be learned: give more scenes.")
        features = _with_one(np.stack([feature for feature, _ in pairs]))
        wanted = np.eye(len(COLORS))[[COLORS.index(color) for _, color in pairs]]
        gram = features.T @ features + _DECAY * len(features) * np.eye(features.shape[1])
        self._map = np.linalg.solve(gram, features.T @ wanted)
        self.fitted = len(pairs)

    def colors(self, objects: VisualObjects) -> list[str]:
        """Return the color of each object."""
        if not len(objects):
            return []
        scores = _with_one(objects.region_features[:, :-_BOX_SIZE]) @ self._map
        return [COLORS[index] for index in scores.argmax(axis=1)]

    def accuracy(self, scenes: Iterable[tuple[Scene, VisualObjects]]) -> float:
        """Return the share of the found shapes whose color is right."""
        right = [
            COLORS[int((_with_one(feature[None]) @ self._map).argmax())] == color
            for scene, objects in scenes
            for feature, color in _colored(scene, objects)
        ]
        return float(np.mean(right))

    def __call__(self, objects: VisualObjects) -> str:
        """Return the text of objects. Characters have no color."""
        names = [
            f"{color} {label}" if label in SHAPES else label
            for color, label in zip(self.colors(objects), objects.labels, strict=True)
        ]
        return format_objects(names, objects.boxes.tolist())


def _colored(scene: Scene, objects: VisualObjects) -> list[tuple[np.ndarray, str]]:
    """Return region feature and true color of each shape that was found."""
    found = []
    for thing in scene.objects:
        for index, label in enumerate(objects.labels):
            if label == thing.shape and box_iou(objects.boxes[index].tolist(), thing.box) >= MIN_IOU:
                found.append((np.asarray(objects.region_features[index, :-_BOX_SIZE], np.float64), thing.color))
                break
    return found


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
