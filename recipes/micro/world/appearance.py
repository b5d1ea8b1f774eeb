"""Appearance of a scene: colors of its ground and of its objects, light, and what a camera and a file do to it."""

from __future__ import annotations

import colorsys
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Random = np.random.Generator

# What people mean by a color. An object has one between two of these.
_MEANINGS = {
    "red": ((215, 40, 40), (255, 0, 0), (178, 24, 32), (230, 65, 50)),
    "orange": ((245, 140, 25), (255, 165, 0), (255, 120, 0), (235, 125, 45)),
    "yellow": ((245, 220, 40), (255, 255, 0), (255, 215, 0), (240, 230, 90)),
    "green": ((45, 150, 60), (0, 128, 0), (0, 200, 60), (80, 180, 70)),
    "cyan": ((60, 200, 215), (0, 255, 255), (0, 188, 212), (64, 224, 208)),
    "blue": ((45, 75, 205), (0, 0, 255), (30, 110, 235), (20, 40, 140)),
    "purple": ((130, 50, 165), (128, 0, 128), (150, 80, 210), (100, 30, 140)),
    "pink": ((245, 130, 185), (255, 192, 203), (255, 105, 180), (250, 150, 190)),
}
_COLOR_NOISE = 10

_GREY_PROBABILITY = 0.4
_SMOOTH = ("shade", "blobs")  # whose two colors may differ more
_PATTERNS = ("plain", "stripes", "checks", "dots", "noise", *_SMOOTH)
_SMOOTH_DIFFERENCE, _OTHER_DIFFERENCE = 80, 30
_MIN_DISTANCE = 65.0  # of an object's color from those of the ground, in RGB


@dataclass(frozen=True)
class Ground:
    """Ground of a scene.

    Attributes:
        pattern: word of `_PATTERNS`.
        first, second: its two colors, float arrays of shape (3,), in [0, 255].
    """

    pattern: str
    first: np.ndarray
    second: np.ndarray

    def hides(self, rgb: np.ndarray) -> bool:
        """Return whether something of a color could be overlooked on the ground."""
        way = self.second - self.first
        share = np.clip((rgb - self.first) @ way / max(float(way @ way), 1e-6), 0, 1)
        return float(np.linalg.norm(rgb - self.first - share * way)) < _MIN_DISTANCE

    def paint(self, width: int, height: int, random: Random) -> np.ndarray:
        """Paint the ground, float32 of shape (height, width, 3)."""
        share = _share_of_second(self.pattern, width, height, random)
        return (self.first + share[..., None] * (self.second - self.first)).astype(np.float32)


def choose_ground(random: Random) -> Ground:
    """Choose a ground: of two similar greyish colors, or of any colors."""
    pattern = str(random.choice(_PATTERNS))
    if random.random() < _GREY_PROBABILITY:
        level = random.uniform(165, 250) if random.random() < 0.7 else random.uniform(5, 80)
        first, second = (level + random.uniform(-14, 14, 3) for _ in range(2))
    else:
        hue, saturation, value = random.uniform((0, 0.1, 0.2), 1)
        first = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        difference = _SMOOTH_DIFFERENCE if pattern in _SMOOTH else _OTHER_DIFFERENCE
        second = first + random.uniform(-difference, difference, 3)
    return Ground(pattern, first.clip(0, 255), second.clip(0, 255))


def _share_of_second(pattern: str, width: int, height: int, random: Random) -> np.ndarray:
    """Return the share of a ground's second color, of shape (height, width), in [0, 1]."""
    y, x = np.mgrid[:height, :width] / min(width, height)
    angle = random.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    match pattern:
        case "stripes":
            return (np.sin(along * 2 * math.pi * random.uniform(3, 20)) > random.uniform(-0.7, 0.7)).astype(float)
        case "checks":
            count = random.integers(4, 14)
            return ((x * count).astype(int) + (y * count).astype(int)) % 2
        case "dots":
            count, radius = random.uniform(6, 16), random.uniform(0.15, 0.4)
            return (np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5) < radius).astype(float)
        case "noise":
            return random.random((height, width))
        case "shade":
            return (along - along.min()) / (along.max() - along.min())
        case "blobs":
            grid = random.integers(0, 256, (random.integers(3, 7), random.integers(3, 7))).astype(np.uint8)
            blurred = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(blurred, float) / 255
        case _:
            return np.zeros((height, width))


def choose_color(color: str, random: Random) -> np.ndarray:
    """Return what somebody may mean by the word of a color, float array of shape (3,), in [0, 255]."""
    first, second = random.choice(_MEANINGS[color], 2)
    share = random.random()
    return (first + share * (second - first) + random.uniform(-_COLOR_NOISE, _COLOR_NOISE, 3)).clip(0, 255)


def nearest_color(rgb: np.ndarray) -> str:
    """Return the word of the color to whose meanings an RGB color of shape (3,) is nearest."""
    distances = {word: np.linalg.norm(np.array(meanings) - rgb, axis=1).min() for word, meanings in _MEANINGS.items()}
    return min(distances, key=lambda word: distances[word])


def choose_contrast(rgb: np.ndarray, random: Random) -> np.ndarray:
    """Return a dark color for something on or around a light one, or the reverse."""
    dark = rgb @ [0.3, 0.6, 0.1] > 125
    return np.full(3, random.uniform(0, 40) if dark else random.uniform(215, 255))


def light(canvas: np.ndarray, random: Random) -> np.ndarray:
    """Light a picture, float32 of shape (height, width, 3): sometimes from one side, sometimes brighter or darker."""
    if random.random() < 0.3:
        height, width = canvas.shape[:2]
        y, x = np.mgrid[:height, :width] / max(width, height)
        angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0, 0.35)
        canvas = canvas * (1 - strength * (0.5 + x * math.cos(angle) + y * math.sin(angle)))[..., None]
    if random.random() < 0.3:
        contrast, cast = random.uniform(0.8, 1.1), random.uniform(0.95, 1.05, 3)
        canvas = ((canvas - 128) * contrast + 128 + random.uniform(-12, 12)) * cast
    return canvas.astype(np.float32)


def photograph(canvas: np.ndarray, random: Random) -> Image.Image:
    """Return the RGB picture of a canvas, sometimes with noise, blurred, of lower resolution, or from a JPEG file."""
    if random.random() < 0.25:
        canvas = canvas + random.normal(0, random.uniform(1, 8), canvas.shape)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    if random.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.7)))
    if random.random() < 0.25:
        scale = random.uniform(0.65, 2.0)
        size = round(image.width * scale), round(image.height * scale)
        ways = Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
        way = ways[int(random.integers(scale < 1, len(ways)))]
        image = image.resize(size, way).resize(image.size, Image.Resampling.BILINEAR)
    if random.random() < 0.3:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(random.integers(35, 96)))
        image = Image.open(file).convert("RGB")
    return image
