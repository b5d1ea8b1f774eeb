"""Objects as text, `label: [x1, y1, x2, y2]`: writing it, tokenising it into maskable items, and reading it back.

Coordinates are xyxy in [0, 1] with three decimals. This is the one place that knows the format. The reader takes
whatever a model or a user may write: it is linear in its input, and what is not exactly a box stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

SEPARATOR = "; "
UNNAMED = "object"
MAX_LABEL_LENGTH = 200

_NUMBER = r"([+-]?[0-9]{1,4}(?:\.[0-9]{1,12})?)"
_COMMA = r"\s{0,4},\s{0,4}"
_BOX = re.compile(rf"\[\s{{0,4}}{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}\s{{0,4}}\]")
_TOLERANCE = 0.01  # a coordinate this far outside [0, 1] is taken for rounding, one beyond for no box at all
_LABEL_ENDS = re.compile(r"[;\n\[\]]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_SPACES = re.compile(r"\s+")


class GroundedObject(NamedTuple):
    """A box in a text.

    Attributes:
        label: the words before the colon, or an empty string where a box stands alone.
        box: xyxy in [0, 1].
        span: where the box, with its brackets, begins and ends in the text.
    """

    label: str
    box: tuple[float, float, float, float]
    span: tuple[int, int]


@dataclass(frozen=True)
class GroundedText:
    """A text and its boxes.

    Attributes:
        text: the text as it was given.
        plain_text: the text without boxes and without the colons before them.
        objects: the boxes, in their order.
    """

    text: str
    plain_text: str
    objects: tuple[GroundedObject, ...]


@dataclass(frozen=True)
class SpatialTokens:
    """Tokens of spatial text. An item is a label or one coordinate.

    Attributes:
        input_ids: token ids, without special tokens.
        item_ids: for each token, the number of its item, or -1 for punctuation. Object k has the items 5k (label) to
            5k + 4 (y2).
        num_objects: how many objects fitted.
    """

    input_ids: list[int]
    item_ids: list[int]
    num_objects: int


def clean_label(label: str) -> str:
    """A label that reads back as itself: on one line, without brackets and semicolons, never empty."""
    label = _SPACES.sub(" ", _CONTROL.sub(" ", label)).translate({91: "(", 93: ")", 59: ","}).strip(" ,:")
    return label[:MAX_LABEL_LENGTH].strip(" ,:") or UNNAMED


def quantize(value: float) -> float:
    """A coordinate as its text says it: cut to [0, 1], three decimals.

    Raises:
        ValueError: when it is not a number.
    """
    if math.isnan(value):
        raise ValueError("A box has a coordinate that is not a number.")
    return float(f"{min(max(float(value), 0.0), 1.0) + 0.0:.3f}")


def format_box(box: Sequence[float]) -> str:
    """`[x1, y1, x2, y2]` with three decimals."""
    return "[" + ", ".join(f"{quantize(value):.3f}" for value in box) + "]"


def format_object(label: str, box: Sequence[float]) -> str:
    """`label: [x1, y1, x2, y2]`."""
    return f"{clean_label(label)}: {format_box(box)}"


def format_objects(labels: Sequence[str], boxes: Sequence[Sequence[float]]) -> str:
    """All objects on one line, separated by semicolons; an empty string without any."""
    return SEPARATOR.join(format_object(label, box) for label, box in zip(labels, boxes, strict=True))


def parse_spatial_text(text: str) -> GroundedText:
    """Find the boxes of a text.

    A box is four numbers in [0, 1] between brackets, separated by commas; corners may come in any order. Anything else,
    such as three numbers, exponents, full-width digits or pixel coordinates, stays text.
    """
    objects, plain, end = [], [], 0
    for match in _BOX.finditer(text):
        x1, y1, x2, y2 = values = [float(group) for group in match.groups()]
        if min(values) < -_TOLERANCE or max(values) > 1 + _TOLERANCE:
            continue
        if min(values) <= 0 or max(values) > 1:
            x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) + 0.0 for value in values)  # and no -0.0
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        before = text[end : match.start()]
        label, stripped = _label_before(before)
        objects.append(GroundedObject(label, box, match.span()))
        plain.append(stripped)
        end = match.end()
    plain.append(text[end:])
    return GroundedText(text, "".join(plain), tuple(objects))


def _label_before(text: str) -> tuple[str, str]:
    """The label at the end of the text before a box, and that text without the colon."""
    stripped = text.rstrip(" ")
    if not stripped.endswith(":"):
        return "", text
    stripped = stripped[:-1]
    window = stripped[-MAX_LABEL_LENGTH:]
    boundaries = [match.end() for match in _LABEL_ENDS.finditer(window)]
    return window[boundaries[-1] if boundaries else 0 :].strip(" ,"), stripped


def tokenize_objects(
    labels: Sequence[str], boxes: Sequence[Sequence[float]], tokenizer: Any, max_tokens: int | None = None
) -> SpatialTokens:
    """Tokens of the objects' spatial text, and which item each belongs to.

    Args:
        tokenizer: a fast tokenizer; special tokens that a label imitates stay text.
        max_tokens: as many whole objects as fit, in their order.
    """
    input_ids: list[int] = []
    item_ids: list[int] = []
    count = 0
    for label, box in zip(labels, boxes, strict=True):
        ids, items = _tokenize_object(clean_label(label), box, tokenizer, 5 * count)
        if max_tokens is not None and len(input_ids) + len(ids) > max_tokens:
            break
        input_ids += ids
        item_ids += items
        count += 1
    return SpatialTokens(input_ids, item_ids, count)


def _tokenize_object(label: str, box: Sequence[float], tokenizer: Any, first_item: int) -> tuple[list[int], list[int]]:
    text, items = label, [first_item] * len(label)
    for number, value in enumerate(box):
        opening = ": [" if number == 0 else ", "
        coordinate = f"{quantize(value):.3f}"
        text += opening + coordinate
        items += [-1] * len(opening) + [first_item + 1 + number] * len(coordinate)
    text += "]" + SEPARATOR.strip()
    items += [-1] * (len(text) - len(items))
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return encoded["input_ids"], [items[start] for start, _ in encoded["offset_mapping"]]
