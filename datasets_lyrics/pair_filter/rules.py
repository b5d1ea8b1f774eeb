"""Rules that a pair of image and caption must satisfy; each refusal has a name, by which it is counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .language import LANGUAGES, UNKNOWN, language_of

_FILE_NAME = re.compile(r"(?i)^.*\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|html?|php)$")
_CAMERA_NAME = re.compile(r"(?i)^(img|dsc[nf]?|image|photo|picture|screenshot|p|pict|untitled)[\s_-]*\d{0,12}$")
_URL = re.compile(r"(?i)(https?://|www\.)\S+")
_IDENTIFIER = re.compile(r"(?=[\w-]*\d)[\w-]{16,}")  # long words with digits
_BOILERPLATE = re.compile(
    r"(?i)\b(stock (photo|image|illustration|vector)s?|royalty[- ]free|click (here|to)|all rights reserved|"
    r"no image available|image (not found|unavailable)|thumbnail|placeholder|logo icon|loading\.\.\.)\b"
)
_LETTERS = 0.5  # share of letters and spaces that a caption has at least
_REPEATED = re.compile(r"(.)\1{5,}")


@dataclass(frozen=True)
class FilterRules:
    """Limits for pairs.

    Attributes:
        min_side: int, pixels of the shorter side.
        max_aspect: float, longer side by shorter side.
        min_words, max_words: ints, words of the caption; for languages without spaces, two characters count as a word.
        languages: codes of languages that are kept, all if empty. A caption whose language is unknown is kept, unless
            `strict_language` is set.
        strict_language: bool, see `languages`.
        noise: bool, whether captions that are file names, URLs, identifiers or boilerplate are dropped.
        duplicates: bool, whether of images with the same perceptual hash only the first is kept.

    Raises:
        ValueError: when a limit is out of its range, or a language is not known.
    """

    min_side: int = 200
    max_aspect: float = 3.0
    min_words: int = 3
    max_words: int = 80
    languages: tuple[str, ...] = ()
    strict_language: bool = False
    noise: bool = True
    duplicates: bool = True

    def __post_init__(self) -> None:
        if self.min_side < 1 or not self.max_aspect >= 1 or not 1 <= self.min_words <= self.max_words:
            raise ValueError(
                "The limits must satisfy min_side >= 1, max_aspect >= 1 and 1 <= min_words <= max_words, and are "
                f"{self.min_side}, {self.max_aspect}, {self.min_words} and {self.max_words}."
            )
        if unknown := [one for one in self.languages if one not in LANGUAGES]:
            raise ValueError(f"The language {unknown[0]!r} is not known; known are {', '.join(LANGUAGES)}.")

    def refuse_text(self, text: str) -> str | None:
        """Return why a caption is refused, or `None`."""
        text = " ".join(text.split())
        words = count_words(text)
        if words < self.min_words:
            return "caption too short"
        if words > self.max_words:
            return "caption too long"
        if self.noise and (noise := find_noise(text)):
            return f"noise: {noise}"
        if self.languages:
            language = language_of(text)
            if language == UNKNOWN and self.strict_language:
                return "language: unknown"
            if language not in (UNKNOWN, *self.languages):
                return f"language: {language}"
        return None

    def refuse_size(self, width: int, height: int) -> str | None:
        """Return why an image of this size is refused, or `None`."""
        short, long = sorted((width, height))
        if short < self.min_side:
            return "image too small"
        return "image too long and narrow" if long > self.max_aspect * short else None


def count_words(text: str) -> int:
    """Return the number of words; two characters beyond Latin script that stand without spaces count as a word."""
    dense = sum("\u3040" <= character <= "\u9fff" or "\u0e00" <= character <= "\u0e7f" for character in text)
    return len(text.split()) if dense * 2 < len(text) else (dense + 1) // 2


def find_noise(text: str) -> str | None:
    """Return what kind of noise an alternative text is, or `None` for a caption."""
    if _FILE_NAME.match(text) or _CAMERA_NAME.match(text):
        return "file name"
    if _URL.search(text):
        return "URL"
    if _BOILERPLATE.search(text):
        return "boilerplate"
    words = text.split()
    if any(_IDENTIFIER.fullmatch(word) for word in words):
        return "identifier"
    if sum(character.isalpha() or character.isspace() for character in text) < _LETTERS * len(text):
        return "few letters"
    if _REPEATED.search(text) or (len(words) >= 6 and len({word.lower() for word in words}) * 3 <= len(words)):
        return "repetition"
    return None
