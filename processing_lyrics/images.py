"""Any picture -> an upright RGB picture, with a pixel budget that is checked before anything is decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image

PictureLike = Any  # a PIL picture, a path, a URL, an array (H, W[, C]) or (C, H, W), or such a tensor

WHITE = (255, 255, 255, 255)


def load_picture(source: PictureLike, max_pixels: int) -> Image.Image:
    """Load a picture upright and in RGB.

    EXIF rotation is applied, transparency is put on white, 16-bit values are scaled, and of an animation the first
    frame is taken.

    Args:
        source: a PIL picture, a path, a URL, an array or a tensor.
        max_pixels: pictures with more pixels are refused before they are decoded.

    Raises:
        ValueError: naming the picture, when it is too large, empty, corrupt or of an unknown kind.
    """
    name = f"picture {os.fspath(source)!r}" if isinstance(source, str | os.PathLike) else "picture"
    try:
        image = _open(source, max_pixels)
        if image.width * image.height == 0:
            raise ValueError(f"The {name} is empty: {image.width} x {image.height} pixels.")
        _check_budget(image.size, max_pixels, name)
        if getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ValueError(f"The {name} does not exist.") from None
    except UnidentifiedImageError:
        raise ValueError(f"The {name} is not in a format that can be read, or it is empty or damaged.") from None
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's errors for damaged files
        raise ValueError(f"The {name} is damaged or cannot be read: {error}") from error


def flatten_pictures(images: Any) -> list[PictureLike]:
    """One picture, a list of pictures, or a list of lists (one per text) -> a flat list, in order."""
    if images is None:
        return []
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return [picture for element in images for picture in flatten_pictures(element)]
    return [images]


def _open(source: PictureLike, max_pixels: int) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Path) or (
        isinstance(source, str) and not source.startswith(("http://", "https://", "data:"))
    ):
        with warnings.catch_warnings():
            # Pillow has a budget of its own, which only warns; `max_pixels` is the one that counts
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                return Image.open(source)
            except Image.DecompressionBombError as error:
                raise ValueError(f"The picture {os.fspath(source)!r} is too large: {error}") from None
    if isinstance(source, str):
        return load_image(source)
    values = np.asarray(source)
    return to_pil_image(values[..., None] if values.ndim == 2 else values)


def _check_budget(size: tuple[int, int], max_pixels: int, name: str) -> None:
    if size[0] * size[1] > max_pixels:
        raise ValueError(
            f"The {name} has {size[0]} x {size[1]} = {size[0] * size[1]:,} pixels, and the limit is {max_pixels:,} "
            "(`max_image_pixels` of the processor): make it smaller, or raise the limit."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scale_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits, or of floats: from the range that its values take to 0..255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = next((limit for limit in (1.0, 255.0, 65535.0) if values.max() <= limit), values.max())
    if image.mode != "F":
        top = max(top, 255.0 if image.mode == "I" else 65535.0)
    return Image.fromarray((values / top * 255.0).clip(0, 255).round().astype(np.uint8))
