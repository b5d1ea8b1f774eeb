"""A sheet of the images that were found, with a line of text below each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..processing_lyrics.label_fonts import load_label_font

_CELL, _GAP, _LINE = 220, 12, 22  # pixels
_MOST_COLUMNS = 5
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def draw_contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    title: str = "",
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Return a sheet of images, row by row.

    Args:
        pictures: images, shown at most 220 pixels wide and high.
        captions: line of text below each; a long one is shortened in its middle.
        title: text above all of them.
        font: font file; by default one is looked for that has all characters.
    """
    columns = max(1, min(_MOST_COLUMNS, len(pictures)))
    lines = -(-len(pictures) // columns)
    head = _LINE + _GAP if title else 0
    height = head + _GAP + lines * (_CELL + _LINE + _GAP)
    sheet = Image.new("RGB", (_GAP + columns * (_CELL + _GAP), height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    letters = load_label_font([title, *captions], 14, font)
    draw.text((_GAP, _GAP), _shorten(title, draw, letters, sheet.width - 2 * _GAP), _INK, letters)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = _GAP + number % columns * (_CELL + _GAP)
        top = head + _GAP + number // columns * (_CELL + _LINE + _GAP)
        scale = _CELL / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        shown = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(shown, (left + (_CELL - size[0]) // 2, top + (_CELL - size[1]) // 2))
        draw.text((left, top + _CELL + 2), _shorten(caption, draw, letters, _CELL), _INK, letters)
    return sheet


def _shorten(text: str, draw: ImageDraw.ImageDraw, font: object, width: int) -> str:
    """Return a text that is at most `width` pixels long, on one line."""
    text = " ".join(text.split())
    kept = len(text)
    shortened = text
    while kept > 4 and draw.textlength(shortened, font) > width:  # pyright: ignore[reportArgumentType]
        kept -= 1
        shortened = f"{text[: kept // 2]}…{text[len(text) - kept + kept // 2 :]}"
    return shortened
