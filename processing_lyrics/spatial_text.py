"""Spatial text: objects written as `label: [x1, y1, x2, y2]`, its tokens by item, and its parsing.

Coordinates are xyxy in [0, 1] with three decimals. No other file knows the format. The parser accepts any text that a
model or a user may write, takes linear time, and leaves everything that is not exactly a box as text. The MQ-Former may
read objects in a shorter style instead, `label: x1 y1 x2 y2` in thousandths, which has fewer tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

SEPARATOR = "; "
UNNAMED = "object"
MAX_LABEL_LENGTH = 200

SpatialStyle = Literal["decimal", "short"]
_MARKS = {"decimal": (": [", ", ", "];"), "short": (": ", " ", ";")}  # before, between and after the coordinates

_BOX = re.compile(r"\[([-+0-9.,\s]{7,120})\]")  # bounded, and no bracket within: linear in any text
_TOLERANCE = 0.01  # coordinates this far outside [0, 1] are rounding errors; beyond, it is no box
_LABEL_END = re.compile(r"[;\n\[\]]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]+")
_SPACES = re.compile(r"\s+")

# Lone surrogates, which no tokenizer takes, and two characters by which Transformers marks sanitized text
_NO_TEXT = re.compile("[\ud800-\udfff\U000f0000\U000f0001]")


class GroundedObject(NamedTuple):
    """A box in a text.

    Attributes:
        label: words before the colon, or an empty string for a box without a label.
        box: xyxy in [0, 1].
        span: start and end of the box in the text, brackets included.
    """

    label: str
    box: tuple[float, float, float, float]
    span: tuple[int, int]


@dataclass(frozen=True)
class GroundedText:
    """A text and its boxes.

    Attributes:
        text: original text.
        plain_text: text without boxes and without the colons before them.
        objects: tuple of the boxes, in their order.
    """

    text: str
    plain_text: str
    objects: tuple[GroundedObject, ...]


@dataclass(frozen=True)
class SpatialTokens:
    """Tokens of spatial text. An item is a label or one coordinate.

    Attributes:
        input_ids: list of token ids, without special tokens.
        item_ids: list of the item of each token, or -1 for punctuation. Object k has the items 5k (label) to 5k + 4
            (y2).
        num_objects: number of objects that fit.
    """

    input_ids: list[int]
    item_ids: list[int]
    num_objects: int


def as_text(text: str) -> str:
    """Return text with U+FFFD in place of lone surrogates and of characters that Transformers uses internally."""
    return text if text.isascii() else _NO_TEXT.sub("\ufffd", text)


def clean_label(label: str) -> str:
    """Return a label that is parsed as itself: on one line, without brackets and semicolons, never empty."""
    label = _SPACES.sub(" ", _CONTROL.sub(" ", label)).translate({91: "(", 93: ")", 59: ","}).strip(" ,:")
    return label[:MAX_LABEL_LENGTH].strip(" ,:") or UNNAMED


def quantize(value: float) -> float:
    """Return a coordinate as it is written: clipped to [0, 1], three decimals.

    Raises:
        ValueError: the coordinate is NaN.
    """
    if math.isnan(value):
        raise ValueError("A box has a coordinate that is not a number.")
    return float(f"{min(max(float(value), 0.0), 1.0) + 0.0:.3f}")


def format_box(box: Sequence[float]) -> str:
    """Return `[x1, y1, x2, y2]` with three decimals."""
    return "[" + ", ".join(f"{quantize(value):.3f}" for value in box) + "]"


def format_object(label: str, box: Sequence[float]) -> str:
    """Return `label: [x1, y1, x2, y2]`."""
    return f"{clean_label(label)}: {format_box(box)}"


def format_objects(labels: Sequence[str], boxes: Sequence[Sequence[float]]) -> str:
    """Return all objects on one line, separated by semicolons; an empty string without objects."""
    return SEPARATOR.join(format_object(label, box) for label, box in zip(labels, boxes, strict=True))


def format_short_objects(labels: Sequence[str], boxes: Sequence[Sequence[float]]) -> str:
    """Return all objects as `label: x1 y1 x2 y2;` in thousandths, as the MQ-Former reads them in the short style."""
    return " ".join(
        _write_object(clean_label(label), box, "short")[0] for label, box in zip(labels, boxes, strict=True)
    )


def parse_short_objects(text: str) -> list[GroundedObject]:
    """Return the objects of a text of `format_short_objects`; other pieces between semicolons are left out."""
    objects, start = [], 0
    for piece in text.split(";"):
        label, colon, numbers = piece.rpartition(": ")
        values = numbers.split()
        if colon and len(values) == 4 and all(read_thousandths(value) is not None for value in values):
            x1, y1, x2, y2 = (read_thousandths(value) or 0.0 for value in values)
            box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            span = (start + len(label) + len(colon), start + len(piece))
            objects.append(GroundedObject(label.strip(), box, span))
        start += len(piece) + 1
    return objects


def read_thousandths(text: str) -> float | None:
    """Return the coordinate of 0 to 1000 thousandths, or `None` for text that is none."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        return None
    value = int(text)
    return value / 1000 if value <= 1000 else None


def parse_spatial_text(text: str) -> GroundedText:
    """Find the boxes of a text.

    A box is four numbers in [0, 1] between brackets, separated by commas; corners may come in any order. Anything else,
    such as three numbers, exponents, full-width digits or pixel coordinates, stays text.
    """
    objects, plain, end = [], [], 0
    coordinates = _Coordinates()
    for match in _BOX.finditer(text):
        box = _read_box(match[1], coordinates)
        if box is None:
            continue
        start, stop = span = match.span()
        label = ""
        if start > end:
            label, before = _label_before(text[end:start])
            plain.append(before)
        objects.append(tuple.__new__(GroundedObject, (label, box, span)))  # three times faster than GroundedObject(...)
        end = stop
    plain.append(text[end:])
    return GroundedText(text, "".join(plain), tuple(objects))


class _Coordinates(dict[str, float]):
    """Cache of the numbers of a text: a coordinate in [0, 1], or NaN for anything else."""

    def __missing__(self, text: str) -> float:
        """Parse a number that is not cached yet."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            value = math.nan
        elif value <= 0:  # also -0.0
            value = 0.0
        elif value > 1:
            value = 1.0
        self[text] = value
        return value


def _read_box(text: str, coordinates: _Coordinates) -> tuple[float, float, float, float] | None:
    """Return the corners that a text of four numbers says, in order and within [0, 1]; `None` for other text."""
    numbers = text.split(",")
    if len(numbers) != 4:
        return None
    x1, y1, x2, y2 = map(coordinates.__getitem__, numbers)
    if not x1 <= x2:
        if not x2 < x1:  # one is NaN
            return None
        x1, x2 = x2, x1
    if not y1 <= y2:
        if not y2 < y1:
            return None
        y1, y2 = y2, y1
    return x1, y1, x2, y2


def _label_before(text: str) -> tuple[str, str]:
    """Return the label at the end of the text before a box, and that text without the colon."""
    stripped = text.rstrip(" ")
    if not stripped.endswith(":"):
        return "", text
    stripped = stripped[:-1]
    if not stripped:
        return "", ""
    return _LABEL_END.split(stripped[-MAX_LABEL_LENGTH:])[-1].strip(" ,"), stripped


def tokenize_objects(
    labels: Sequence[str],
    boxes: Sequence[Sequence[float]],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None = None,
    style: SpatialStyle = "decimal",
) -> SpatialTokens:
    """Return the tokens of objects' spatial text, and the item of each.

    Args:
        labels: sequence of names.
        boxes: sequence of boxes, xyxy in [0, 1].
        tokenizer: fast tokenizer; special tokens that a label imitates stay text.
        max_tokens: largest number of tokens; objects are kept whole and in their order.
        style: `"decimal"` for `label: [0.100, ...]`, or `"short"` for `label: 100 ...` with a third of the tokens.
    """
    pairs = [*zip(labels, boxes, strict=True)][:max_tokens]  # an object takes a token at least
    written = [_write_object(clean_label(label), box, style) for label, box in pairs]
    if not written:
        return SpatialTokens([], [], 0)
    texts = [text for text, _ in written]  # in one call, whose overhead is that of several objects
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    input_ids: list[int] = []
    item_ids: list[int] = []
    count = 0
    for ids, offsets, (_, items) in zip(encoded["input_ids"], encoded["offset_mapping"], written, strict=True):
        if max_tokens is not None and len(input_ids) + len(ids) > max_tokens:
            return SpatialTokens(input_ids, item_ids, count)
        input_ids += ids
        of_tokens = (items[start] for start, _ in offsets)
        item_ids += [item if item < 0 else 5 * count + item for item in of_tokens]
        count += 1
    return SpatialTokens(input_ids, item_ids, count)


def _write_object(label: str, box: Sequence[float], style: SpatialStyle) -> tuple[str, list[int]]:
    """Return the text of one object, and the item of each character: 0 to 4, or -1 for punctuation."""
    before, between, after = _MARKS[style]
    text, items = label, [0] * len(label)
    for number, value in enumerate(box):
        opening = before if number == 0 else between
        coordinate = f"{quantize(value):.3f}" if style == "decimal" else str(round(1000 * quantize(value)))
        text += opening + coordinate
        items += [-1] * len(opening) + [1 + number] * len(coordinate)
    return text + after, items + [-1] * len(after)
