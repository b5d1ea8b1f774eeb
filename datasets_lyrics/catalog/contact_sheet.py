"""A contact sheet: images of a data set with their boxes, questions and answers, to look at before training."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ...processing_lyrics import VisualObjects
from ...processing_lyrics.drawing import draw_objects
from ...processing_lyrics.image_loading import load_picture
from ...processing_lyrics.label_fonts import load_label_font
from ...processing_lyrics.spatial_text import GroundedObject
from ..path_guard import PathGuard
from .checking import MAX_PIXELS

CELL = (360, 270)  # pixels of an image
LINES, LINE_HEIGHT, COLUMNS = 8, 16, 52
MARGIN = 8


def draw_sheet(rows: Sequence[Mapping[str, Any]], guard: PathGuard) -> Image.Image:
    """Draw canonical rows; an image that cannot be read is a gray one that says why.

    Args:
        rows: at least one row.
        guard: rule for the paths of the images.

    Returns:
        RGB image, about as many cells wide as high.
    """
    width = math.ceil(math.sqrt(len(rows)))
    cell = (CELL[0] + MARGIN, CELL[1] + LINES * LINE_HEIGHT + MARGIN)
    sheet = Image.new("RGB", (width * cell[0], math.ceil(len(rows) / width) * cell[1]), "white")
    font = load_label_font([text for row in rows for text in _lines(row)], 12)
    for number, row in enumerate(rows):
        x, y = number % width * cell[0] + MARGIN // 2, number // width * cell[1] + MARGIN // 2
        picture = _picture(row, guard)
        sheet.paste(picture, (x + (CELL[0] - picture.width) // 2, y))
        for place, line in enumerate(_lines(row)[:LINES]):
            ImageDraw.Draw(sheet).text((x, y + CELL[1] + place * LINE_HEIGHT), line, "black", font)
    return sheet


def _picture(row: Mapping[str, Any], guard: PathGuard) -> Image.Image:
    """Return the first image of a row with its boxes, or a gray one that says what is wrong."""
    if not row["images"]:
        return _gray("no image")
    try:
        picture = load_picture(Path(guard.check_path(row["images"][0])), MAX_PIXELS)
    except (ValueError, OSError) as error:
        return _gray(str(error))
    drawn = draw_objects(picture, VisualObjects(), _boxes(row), scores=False)
    drawn.thumbnail(CELL)
    return drawn


def _gray(text: str) -> Image.Image:
    picture = Image.new("RGB", CELL, "lightgray")
    lines = "\n".join(textwrap.wrap(text, COLUMNS))
    ImageDraw.Draw(picture).text((MARGIN, MARGIN), lines, "black", load_label_font([lines], 12))
    return picture


def _boxes(row: Mapping[str, Any]) -> list[GroundedObject]:
    blocks = [block for message in row["messages"] for block in message["content"] if block["type"] == "box"]
    found = [(region["phrase"], tuple(region["box"])) for region in row["regions"]]
    found += [(block.get("label") or "", tuple(block["box"])) for block in blocks if not row["regions"]]
    return [GroundedObject(phrase, box, (0, 0)) for phrase, box in found]


def _lines(row: Mapping[str, Any]) -> list[str]:
    """Return what is said in a row, wrapped."""
    lines = [_visible(f"{row['dataset']} {row['id']}")[:COLUMNS]]
    for message in row["messages"]:
        text = f"{'Q' if message['role'] == 'user' else 'A'}: {''.join(map(_say, message['content']))}"
        lines += [part for line in text.splitlines() for part in textwrap.wrap(_visible(line), COLUMNS)]
    return lines


def _visible(text: str) -> str:
    """Return text with escapes for characters that are not drawn, or that turn the direction of what follows."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _say(block: Mapping[str, Any]) -> str:
    if block["type"] == "text":
        return block["text"]
    if block["type"] == "image":
        return ""
    label = f"{block['label']} " if block.get("label") else ""
    return f"{label}[{', '.join(f'{value:.2f}' for value in block['box'])}]"
