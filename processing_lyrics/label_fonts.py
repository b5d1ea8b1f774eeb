"""Fonts for labels of any script: Pillow's own, the one that the caller names, or one that is installed."""

from __future__ import annotations

import os
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont
from transformers.utils import logging

logger = logging.get_logger(__name__)

_UNASSIGNED = "\U0010ffff"  # no font has it: it is drawn as the box for characters without a glyph
_PLAIN_SIZE = 16  # in which fonts are compared
_ENDINGS = (".ttf", ".ttc", ".otf", ".otc")
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "condensed", "mono", "serif")


def load_label_font(labels: list[str], size: int, path: str | os.PathLike[str] | None = None) -> Any:
    """Return a font that has the characters of all labels, as far as one is found.

    Args:
        labels: list of the texts to draw.
        size: size in pixels.
        path: font file to use; by default Pillow's own font, or the installed one that lacks the fewest characters.

    Raises:
        ValueError: the file is no font.
    """
    text = "".join(sorted({character for label in labels for character in label if _is_visible(character)}))
    own = ImageFont.load_default(size) if path is None else open_font(path, size)
    if not isinstance(own, ImageFont.FreeTypeFont):  # Pillow without FreeType
        return own
    best, lacking = own, missing_characters(own, text)
    if lacking and path is None:
        found = _find_font(text)
        if found is not None and len(found[1]) < len(lacking):
            best, lacking = ImageFont.truetype(found[0], size), found[1]
    if lacking:
        name = "No font that is installed has" if path is None else f"The font {os.fspath(path)} lacks"
        logger.warning_once(
            f"{name} the characters {lacking[:40]!r}, which are drawn as boxes: name a font file that has them "
            "(`font` of the processor's `visualize`, `--font` of the command line)."
        )
    return best


def open_font(path: str | os.PathLike[str], size: int = _PLAIN_SIZE) -> ImageFont.FreeTypeFont:
    """Open a font file.

    Raises:
        ValueError: the file is missing or no font.
    """
    try:
        return ImageFont.truetype(os.fspath(path), size)
    except (OSError, ValueError) as error:
        raise ValueError(f"The font {os.fspath(path)} cannot be read: {error}") from error


def missing_characters(font: ImageFont.FreeTypeFont, text: str) -> str:
    """Return the characters of a text for which a font has no glyph."""
    box = _glyph(font, _UNASSIGNED)
    return "".join(character for character in text if _glyph(font, character) == box)


@lru_cache(maxsize=256)
def _find_font(text: str) -> tuple[str, str] | None:
    """Return the installed font that lacks the fewest characters of a text, and these; `None` where none is usable."""
    best: tuple[str, str] | None = None
    for path in _installed_fonts():
        try:
            lacking = missing_characters(ImageFont.truetype(path, _PLAIN_SIZE), text)
        except (OSError, ValueError):  # a damaged file, or a font of bitmaps in another size
            continue
        if best is None or len(lacking) < len(best[1]):
            best = path, lacking
        if not lacking:
            break
    return best


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """Return the font files of this machine, plain styles first."""
    files = {
        os.path.join(folder, name)
        for place in _font_folders()
        for folder, _, names in os.walk(place)
        for name in names
        if name.lower().endswith(_ENDINGS)
    }
    return tuple(sorted(files, key=lambda file: (sum(style in Path(file).stem.lower() for style in _STYLES), file)))


def _font_folders() -> list[str]:
    """Return the folders in which this system keeps fonts; they need not exist."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", os.path.join(home, "AppData", "Local"))
        windows = os.environ.get("WINDIR", "C:\\Windows")
        return [os.path.join(windows, "Fonts"), os.path.join(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", os.path.join(home, "Library", "Fonts")]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return [*(os.path.join(place, "fonts") for place in [own, *shared.split(":")]), os.path.join(home, ".fonts")]


def _is_visible(character: str) -> bool:
    """Return whether a character is drawn: spaces, controls, surrogates and private ones are not."""
    return unicodedata.category(character)[0] not in "CZ"


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    """Return size and pixels of a character."""
    mask: Any = font.getmask(character)
    return mask.size, bytes(mask)
