"""Views of an image for each part of the refiner: size, normalization, padding. PIL resizes, antialiased."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps

from .configuration_ram import PerChannel

BILINEAR = Image.Resampling.BILINEAR
ORIENTATION = 0x0112  # EXIF tag

# No side of the detector's view is shorter: its deepest feature map is 32 times smaller than its input.
MIN_DETECTOR_EDGE = 32


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture upright and in RGB, itself where it already is."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_tensor(image: Image.Image, mean: PerChannel, std: PerChannel, out: torch.Tensor | None = None) -> torch.Tensor:
    """Convert an RGB picture to a normalized float32 tensor of shape (3, H, W).

    Args:
        image: RGB picture.
        mean, std: normalization, RGB in [0, 1].
        out: float32 tensor of shape (3, H, W) that the values are written to; by default a new one.
    """
    out = torch.empty(3, image.height, image.width) if out is None else out
    means, stds = (torch.tensor(values).expand(3) for values in (mean, std))
    for values, band, middle, scale in zip(out, image.split(), means, stds, strict=True):
        # one channel at a time, which stays in the processor's cache
        values.copy_(torch.from_numpy(np.array(band))).div_(255).sub_(middle).div_(scale)
    return out


def tagger_view(image: Image.Image, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """Return the whole picture, stretched to a square of shape (3, size, size)."""
    return to_tensor(image.resize((size, size), BILINEAR), mean, std)


def detector_size(width: int, height: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    """Return (width, height) of the detector's view.

    The short side gets `shortest_edge`, unless the long side would exceed `longest_edge`. This is Grounding DINO's own
    rule; Transformers rounds differently where the long side is limited.
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
    """Return the whole picture resized to `detector_size`, shape (3, h, w)."""
    size = detector_size(*image.size, shortest_edge, longest_edge)
    return to_tensor(image.resize(size, BILINEAR), mean, std)


def square_view(image: Image.Image, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """Return OWLv2's view (3, size, size): the picture padded with black at the right and the bottom to a square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image)
    return to_tensor(square.resize((size, size), BILINEAR), mean, std)


def segmenter_view(
    image: Image.Image, size: int, mean: PerChannel, std: PerChannel, stretched: bool = False
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return the segmenter's view (3, size, size), and height and width of the picture inside it.

    The long side is resized to `size`, and zeros are padded at the right and the bottom. With `stretched`, the picture
    fills the view, as for SAM 2 and EdgeTAM.
    """
    if stretched:
        return tagger_view(image, size, mean, std), (size, size)
    scale = size / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    view = torch.empty(3, size, size)
    view[:, height:].zero_()
    view[:, :, width:].zero_()
    to_tensor(image.resize((width, height), BILINEAR), mean, std, view[:, :height, :width])
    return view, (height, width)
