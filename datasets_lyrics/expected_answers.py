"""Columns of a row that say what is expected of an answer, which rewards compare it with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .row_boxes import TOLERANCE

EXPECTED = ("expected_boxes", "expected_count", "expected_existence", "expected_answer")


def check_expected(row: Mapping[str, Any], size: tuple[float, float] = (1, 1)) -> dict[str, Any]:
    """Return the columns `EXPECTED` of a row, `None` for those that it lacks, with boxes in [0, 1].

    Args:
        row: mapping.
        size: width and height of the image in the units of the boxes.

    Returns:
        Mapping of each column; boxes are x1, y1, x2, y2, as the row orders their corners.

    Raises:
        ValueError: a value has another type, or a box is not x1, y1, x2, y2 within the image.
    """
    checks = {
        "expected_boxes": lambda boxes: [_check_box(box, size) for box in _as_list(boxes)],
        "expected_count": _check_count,
        "expected_existence": lambda value: bool(_check_type("expected_existence", value, (bool, np.bool_))),
        "expected_answer": lambda value: _check_type("expected_answer", value, (str,)),
    }
    return {name: None if row.get(name) is None else checks[name](row[name]) for name in EXPECTED}


def _check_type(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {'text' if str in kinds else 'true or false'}, got {value!r:.100}.")
    return value


def _check_count(value: Any) -> int:
    """Return a whole number; as a float it comes from tables in which rows lack it."""
    is_number = isinstance(value, int | float | np.integer) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise ValueError(f"expected_count must be a whole number, got {value!r:.100}.")
    return int(value)


def _as_list(boxes: Any) -> list[Any]:
    boxes = boxes.tolist() if hasattr(boxes, "tolist") else boxes
    if not isinstance(boxes, list | tuple):
        raise ValueError(f"expected_boxes must be a list of boxes, got {boxes!r:.100}.")
    return list(boxes)


def _check_box(box: Any, size: tuple[float, float]) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(value) / side for value, side in zip(box, size * 2, strict=True))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected_boxes must hold boxes [x1, y1, x2, y2], and one is {box!r:.100}.") from error
    if not all(math.isfinite(value) and -TOLERANCE <= value <= 1 + TOLERANCE for value in (x1, y1, x2, y2)):
        units = "relative to the image" if size == (1, 1) else f"in pixels of an image of {size[0]} x {size[1]}"
        raise ValueError(f"The expected box {list(box)} lies outside of its image ({units}).")
    return [x1, y1, x2, y2]
