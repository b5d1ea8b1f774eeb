"""Perceptual hashes of images: 64 bits that scaling and compressing hardly change, and their comparison."""

from __future__ import annotations

import numpy as np
from PIL import Image

DISTANCE = 3  # bits by which copies may differ; below the number of bands, so that no pair is missed
_BANDS = 4
_PLAIN = 6  # set or unset bits of an image that is nearly one color: it says nothing
_SIDE = 8


def perceptual_hash(picture: Image.Image) -> int:
    """Return the difference hash of an image: whether each of 8 x 8 places is brighter than its left neighbor."""
    gray = picture.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(gray, np.int16)
    bits = np.packbits((pixels[:, 1:] > pixels[:, :-1]).flatten())
    return int.from_bytes(bits.tobytes(), "big")


def is_plain(hashes: np.ndarray) -> np.ndarray:
    """Return (N,) bool: whether a hash is that of an image of nearly one color, which has many unrelated twins."""
    ones = _count_bits(hashes)
    return (ones < _PLAIN) | (ones > 64 - _PLAIN)


def near(hashes: np.ndarray, others: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Return which hashes have a near one among others.

    Two hashes that differ in at most three bits agree in one of four bands of 16 bits, so that only hashes that share
    a band are compared.

    Args:
        hashes: uint64 array of shape (N,).
        others: uint64 array of shape (M,).
        distance: int, at most 3.

    Returns:
        Bool array of shape (N,).
    """
    assert distance < _BANDS
    found = np.zeros(len(hashes), bool)
    others = np.unique(others[~is_plain(others)])
    candidates = np.flatnonzero(~is_plain(hashes))
    for band in range(_BANDS):
        shift = np.uint64(16 * band)
        keys = (others >> shift) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        wanted = (hashes[candidates] >> shift) & np.uint64(0xFFFF)
        starts, ends = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, "right")
        for place in np.flatnonzero(ends > starts):
            group = others[order[starts[place] : ends[place]]]
            number = candidates[place]
            found[number] |= bool((_count_bits(group ^ hashes[number]) <= distance).any())
    return found


def _count_bits(values: np.ndarray) -> np.ndarray:
    """Return the number of set bits of uint64 values (N,); numpy has a function for it from 2.0 on."""
    return np.unpackbits(np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8), axis=1).sum(1)
