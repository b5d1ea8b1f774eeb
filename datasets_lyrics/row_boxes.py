"""Boxes of a conversation: which image each belongs to, and where it lies there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .conversations import Conversation, box_blocks

BoxUnits = Literal["relative", "pixel"]
TOLERANCE = 0.01  # how far a relative coordinate may lie outside [0, 1]


def read_boxes(
    conversation: Conversation, sizes: Sequence[tuple[int, int]], units: str = "relative"
) -> list[tuple[int, list[float]]]:
    """Return the number of its image and the coordinates in [0, 1] of each box, in the order of their blocks.

    Args:
        conversation: conversation whose boxes are blocks.
        sizes: width and height in pixels of each image.
        units: `"relative"` in [0, 1], or `"pixel"` of the upright image.

    Returns:
        List of the number and of x1, y1, x2, y2, as the row orders its corners.

    Raises:
        ValueError: if a box is none, lies outside its image, or its image is not known; the message gives the values.
    """
    if units not in get_args(BoxUnits):
        raise ValueError(f"box_units must be one of {', '.join(map(repr, get_args(BoxUnits)))}, got {units!r}.")
    found = []
    for block in box_blocks(conversation.messages):
        number = block.get("image", 0 if len(sizes) == 1 else None)
        if not isinstance(number, int) or not 0 <= number < len(sizes):
            raise ValueError(f"A box has the image number {number}, and the row has {len(sizes)}: set its `image`.")
        found.append((number, _relative(block["box"], sizes[number], units)))
    return found


def in_order(box: Sequence[float]) -> list[float]:
    """Return a box (x1, y1, x2, y2) with its corners in order, x1 <= x2 and y1 <= y2."""
    x1, y1, x2, y2 = box
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


def _relative(given: object, size: tuple[int, int], units: str) -> list[float]:
    try:
        box = np.asarray(given, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The box {given!r:.100} is no list of numbers: {error}") from error
    if units == "pixel":
        box = box / np.array(size * 2) if len(box) == 4 else box
    if len(box) != 4 or not np.isfinite(box).all() or (box < -TOLERANCE).any() or (box > 1 + TOLERANCE).any():
        hint = " For pixels, set box_units='pixel' (`--box_units pixel`)." if units == "relative" else ""
        raise ValueError(
            f"The box {given} is not x1, y1, x2, y2 within an image of {size} pixels (box_units={units!r}).{hint}"
        )
    return box.clip(0.0, 1.0).tolist()
