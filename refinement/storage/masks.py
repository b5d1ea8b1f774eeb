"""Masks as run lengths: COCO's uncompressed form, column by column, beginning with how many pixels are outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def encode_mask(mask: np.ndarray) -> np.ndarray:
    """(height, width) bool -> (runs,) uint32; their sum is height * width."""
    pixels = np.asarray(mask, bool).flatten(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate(([0], changes, [pixels.size]))
    runs = np.diff(edges).astype(np.uint32)
    return np.concatenate(([0], runs)).astype(np.uint32) if pixels.size and pixels[0] else runs


def decode_mask(runs: Sequence[int] | np.ndarray, height: int, width: int) -> np.ndarray:
    """The inverse of `encode_mask`: (height, width) bool.

    Raises:
        ValueError: when the runs are not those of a mask of this size.
    """
    runs = np.asarray(runs, np.int64)
    if int(runs.sum()) != height * width:
        raise ValueError(f"Runs of {int(runs.sum())} pixels for a mask of {height} x {width}.")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape((height, width), order="F")
