"""Identity of an image: the hash of its decoded pixels."""

from __future__ import annotations

import hashlib

from PIL import Image

_PIXELS_COPIED = 1 << 22  # at a time


def hash_picture(picture: Image.Image) -> bytes:
    """Return the SHA-256 of mode, size and pixels of an upright RGB image."""
    width, height = picture.size
    digest = hashlib.sha256(f"{picture.mode} {width} {height} ".encode())
    step = max(1, _PIXELS_COPIED // width)
    for top in range(0, height, step):  # in strips, so that a large image is not copied as a whole
        strip = picture if step >= height else picture.crop((0, top, width, min(top + step, height)))
        digest.update(strip.tobytes())
    return digest.digest()
