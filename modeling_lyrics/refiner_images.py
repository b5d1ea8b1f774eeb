"""Views of an image for each part of the refiner: size, normalization, padding.

An image is an RGB PIL image, which PIL resizes, or its bytes as a tensor (`to_pixels`), which torch resizes on
their device: faster on a CPU, too. Bytes then differ by at most 1. Both are bilinear and antialiased.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import interpolate

from .configuration_ram import PerChannel

Picture = Image.Image | torch.Tensor  # RGB; a tensor is uint8 of shape (3, height, width)

BILINEAR = Image.Resampling.BILINEAR
ORIENTATION = 0x0112  # EXIF tag

# No side of the detector's view is shorter: its deepest feature map is 32 times smaller than its input.
MIN_DETECTOR_EDGE = 32


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in RGB, itself where it already is."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_pixels(image: Image.Image, device: torch.device) -> torch.Tensor:
    """Return the bytes of an RGB image as a uint8 tensor of shape (3, height, width)."""
    return torch.from_numpy(np.stack([np.asarray(band) for band in image.split()])).to(device)


def size_of(picture: Picture) -> tuple[int, int]:
    """Return (width, height)."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[2], picture.shape[1])


def resize(picture: Picture, width: int, height: int) -> Picture:
    """Return an image in another size, of the same kind."""
    if isinstance(picture, Image.Image):
        return picture.resize((width, height), BILINEAR)
    if picture.device.type == "cpu":
        return interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]
    return resize_as_numbers(picture, width, height)


def resize_as_numbers(pixels: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Resize bytes of shape (3, h, w) on a device that cannot resize bytes, such as a GPU."""
    resized = interpolate(pixels[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def to_tensor(picture: Picture, mean: PerChannel, std: PerChannel, out: torch.Tensor | None = None) -> torch.Tensor:
    """Convert an image to a normalized float32 tensor of shape (3, H, W).

    Args:
        picture: RGB image.
        mean, std: normalization, RGB in [0, 1].
        out: float32 tensor of shape (3, H, W) that the values are written to; by default a new one.
    """
    if isinstance(picture, Image.Image):
        bands = [torch.from_numpy(np.array(band)) for band in picture.split()]
    else:
        bands = list(picture)
    out = torch.empty(3, *bands[0].shape, device=bands[0].device) if out is None else out
    means, stds = (torch.tensor(values).expand(3).tolist() for values in (mean, std))
    for values, band, middle, scale in zip(out, bands, means, stds, strict=True):
        # one channel at a time, which stays in the processor's cache
        values.copy_(band).div_(255).sub_(middle).div_(scale)
    return out


def tagger_view(picture: Picture, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """Return the whole image, stretched to a square of shape (3, size, size)."""
    return to_tensor(resize(picture, size, size), mean, std)


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
    picture: Picture, shortest_edge: int, longest_edge: int, mean: PerChannel, std: PerChannel
) -> torch.Tensor:
    """Return the whole image resized to `detector_size`, shape (3, h, w)."""
    size = detector_size(*size_of(picture), shortest_edge, longest_edge)
    return to_tensor(resize(picture, *size), mean, std)


def square_view(picture: Picture, size: int, mean: PerChannel, std: PerChannel) -> torch.Tensor:
    """Return OWLv2's view (3, size, size): the image padded with black at the right and the bottom to a square."""
    width, height = size_of(picture)
    side = max(width, height)
    if isinstance(picture, Image.Image):
        square = Image.new("RGB", (side, side))
        square.paste(picture)
    else:
        square = picture.new_zeros(3, side, side)
        square[:, :height, :width] = picture
    return to_tensor(resize(square, size, size), mean, std)


def segmenter_view(
    picture: Picture, size: int, mean: PerChannel, std: PerChannel, stretched: bool = False
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return the segmenter's view (3, size, size), and height and width of the image inside it.

    The long side is resized to `size`, and zeros are padded at the right and the bottom. With `stretched`, the image
    fills the view, as for SAM 2 and EdgeTAM.
    """
    if stretched:
        return tagger_view(picture, size, mean, std), (size, size)
    sides = size_of(picture)
    scale = size / max(sides)
    width, height = (max(1, int(side * scale + 0.5)) for side in sides)
    device = picture.device if isinstance(picture, torch.Tensor) else None
    view = torch.empty(3, size, size, device=device)
    view[:, height:].zero_()
    view[:, :, width:].zero_()
    to_tensor(resize(picture, width, height), mean, std, view[:, :height, :width])
    return view, (height, width)
