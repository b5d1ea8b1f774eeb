"""Identity of an image: the hash of its decoded pixels, and the hash of its file."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...processing_lyrics.image_loading import load_picture
from ...processing_lyrics.picture_hash import hash_picture

MAX_FILE_SIZE = 1 << 30  # bytes; no image within the pixel budget has a larger file


@dataclass(frozen=True)
class LoadedPicture:
    """An image that was read and hashed.

    Attributes:
        picture: PIL image, upright, RGB.
        image_hash: 32 bytes, see `hash_picture`.
        file_sha256: 32 bytes, or `None` without a file.
        pixels: resized pixels, uint8 array of shape (height, width, 3), or `None` where they are not wanted.
    """

    picture: Image.Image
    image_hash: bytes
    file_sha256: bytes | None
    pixels: np.ndarray | None = None


def read_picture(source: Any, max_pixels: int) -> LoadedPicture:
    """Read an image and hash it.

    Args:
        source: `Path`, bytes of a file, PIL image, array or tensor. Never a URL: nothing is fetched.
        max_pixels: int, largest number of pixels; a larger image is refused before it is decoded.

    Raises:
        ValueError: saying what is wrong, as `load_picture` does.
        OSError: when the file cannot be read.
    """
    if isinstance(source, os.PathLike):
        source = read_file(Path(source))
    file_sha256 = hashlib.sha256(source).digest() if isinstance(source, bytes) else None
    picture = load_picture(source, max_pixels)
    return LoadedPicture(picture, hash_picture(picture), file_sha256)


def read_file(path: Path) -> bytes:
    """Return the content of a regular file of at most `MAX_FILE_SIZE` bytes.

    Raises:
        ValueError: when it is larger, or no regular file.
        OSError: when it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file.")
    if status.st_size > MAX_FILE_SIZE:
        raise ValueError(f"{path} has {status.st_size:,} bytes, and the limit is {MAX_FILE_SIZE:,}.")
    return path.read_bytes()
