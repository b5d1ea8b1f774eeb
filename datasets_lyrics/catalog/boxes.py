"""Conversion of the boxes of data sets to xyxy in [0, 1] of the image: ordered, clamped, with an area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .omissions import OmittedError

Size = tuple[float, float]
Box = list[float]

DECIMALS = 6  # of a coordinate in [0, 1]: a millionth of a side is below a pixel


def from_xyxy(values: Any, size: Size, start: float = 0.0) -> Box:
    """Convert a box of corners in pixels.

    Args:
        values: x1, y1, x2, y2.
        size: width and height of the image in the same unit.
        start: coordinate of the first pixel; 1 for data sets that count from one, as VOC does.

    Raises:
        OmittedError: when the numbers are no box, or it has no area within the image.
    """
    x1, y1, x2, y2 = _four_numbers(values)
    width, height = size
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise OmittedError("no size", f"the image has the size {width} x {height}")
    x1, y1 = x1 - start, y1 - start  # of pixels counted from one, the end is the start of the pixel after it
    box = [x1 / width, y1 / height, x2 / width, y2 / height]
    return normalize(box, values)


def from_xywh(values: Any, size: Size) -> Box:
    """Convert a box of corner, width and height in pixels; see `from_xyxy`."""
    x, y, width, height = _four_numbers(values)
    if width <= 0 or height <= 0:
        raise OmittedError("bad box", f"{list(values)} has no area")
    return from_xyxy([x, y, x + width, y + height], size)


def from_center(values: Any) -> Box:
    """Convert a box of center, width and height in [0, 1], as YOLO has it; see `from_xyxy`."""
    x, y, width, height = _four_numbers(values)
    if width <= 0 or height <= 0 or max(abs(one) for one in (x, y, width, height)) > 2:
        raise OmittedError("bad box", f"{list(values)} is not center, width and height in [0, 1]")
    return normalize([x - width / 2, y - height / 2, x + width / 2, y + height / 2], values)


def from_padded_square(values: Any, size: Size) -> Box:
    """Convert corners in [0, 1] of the image padded to a square, centered as LLaVA pads it."""
    x1, y1, x2, y2 = _four_numbers(values)
    width, height = size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return from_xyxy([x1 * side - left, y1 * side - top, x2 * side - left, y2 * side - top], size)


def normalize(box: Sequence[float], given: Any = None) -> Box:
    """Order and clamp corners in [0, 1].

    Raises:
        OmittedError: when nothing of the box lies within the image.
    """
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    clamped = [round(min(1.0, max(0.0, value)), DECIMALS) for value in (x1, y1, x2, y2)]
    if clamped[0] >= clamped[2] or clamped[1] >= clamped[3]:
        raise OmittedError("bad box", f"{given if given is not None else list(box)} has no area within the image")
    return clamped


def _four_numbers(values: Any) -> list[float]:
    try:
        numbers = [] if isinstance(values, str) else [float(value) for value in values]
    except (TypeError, ValueError):
        raise OmittedError("bad box", f"{values!r:.80} is no list of numbers") from None
    if len(numbers) != 4 or not all(math.isfinite(value) for value in numbers):
        raise OmittedError("bad box", f"{values!r:.80} is not four finite numbers")
    return numbers
