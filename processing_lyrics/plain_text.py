"""What of a string is text at all."""

from __future__ import annotations

import re

# Half of a character, which no tokenizer takes, and the two characters by which Transformers marks what it sanitised
_NO_TEXT = re.compile("[\ud800-\udfff\U000f0000\U000f0001]")


def as_text(text: str) -> str:
    """The text with U+FFFD in place of what is none: lone surrogates, and marks that Transformers keeps to itself."""
    return text if text.isascii() else _NO_TEXT.sub("\ufffd", text)
