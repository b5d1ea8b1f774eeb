"""How each part of the refiner sees an image: size, normalisation, padding. Resizing is PIL's, antialiased."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps

from .configuration_ram import PerChannel

BILINEAR = Image.Resampling.BILINEAR
ORIENTATION = 0x0112  # in EXIF

# No side of the detector's view is shorter: its deepest feature map is 32 times smaller than its input.
MIN_DETECTOR_EDGE = 32


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture upright and in RGB; one that already is, itself."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_tensor(image: Image.Image, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """RGB picture -> (3, H, W) float32, scaled to [0, 1] and normalised."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def tagger_view(image: Image.Image, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """(3, size, size): the whole picture, its aspect ratio not kept."""
    return to_tensor(image.resize((size, size), BILINEAR), mean, std)


def detector_size(width: int, height: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    """(width, height) of the detector's view: the short side as asked for, unless the long one grows beyond its limit.

    Grounding DINO's own rule. Transformers rounds differently where the long side is limited.
    """
    short, long = min(width, height), max(width, height)
    edge = shortest_edge
    if long / short * edge > longest_edge:
        edge = max(round(longest_edge * short / long), min(MIN_DETECTOR_EDGE, shortest_edge))
    other = min(int(edge * long / short), max(longest_edge, edge))
    return (edge, other) if width <= height else (other, edge)


def detector_view(
    image: Image.Image, shortest_edge: int, longest_edge: int, mean: PerChannel, std: PerChannel
) -> torch.Tensor:
    """(3, h, w): the whole picture, resized by `detector_size`."""
    size = detector_size(*image.size, shortest_edge, longest_edge)
    return to_tensor(image.resize(size, BILINEAR), mean, std)


def square_view(image: Image.Image, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """(3, size, size): the picture padded with black at the right and the bottom to a square, as OWLv2 sees it."""
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image)
    return to_tensor(square.resize((size, size), BILINEAR), mean, std)


def segmenter_view(
    image: Image.Image, size: int, mean: PerChannel, std: PerChannel, stretched: bool = False
) -> tuple[torch.Tensor, tuple[int, int]]:
    """(3, size, size): the long side resized to `size`, padded with zeros at the right and the bottom; and (h, w).

    `stretched` fills the view instead, as SAM 2 does.
    """
    if stretched:
        return tagger_view(image, size, mean, std), (size, size)
    scale = size / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    view = torch.zeros(3, size, size)
    view[:, :height, :width] = to_tensor(image.resize((width, height), BILINEAR), mean, std)
    return view, (height, width)
