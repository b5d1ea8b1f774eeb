"""Masks as COCO writes them: compressed run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask in COCO's compressed form, which `pycocotools.mask.decode` reads.

    Args:
        mask: bool array of shape (height, width).

    Returns:
        Dictionary of `size` [height, width] and `counts`, a string.
    """
    height, width = mask.shape
    values = mask.ravel(order="F")
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [values.size]])).tolist()
    if values.size and values[0]:
        lengths.insert(0, 0)  # the first run is one of zeros
    differences = [length - lengths[index - 2] if index > 2 else length for index, length in enumerate(lengths)]
    return {"size": [height, width], "counts": "".join(map(_encode_number, differences))}


def _encode_number(value: int) -> str:
    """Return a number in characters of six bits: five of the number, lowest first, and whether more follow."""
    characters = []
    while True:
        bits, value = value & 0x1F, value >> 5
        is_last = value == (-1 if bits & 0x10 else 0)  # the highest bit is the sign
        characters.append(chr(48 + (bits if is_last else bits | 0x20)))
        if is_last:
            return "".join(characters)
