"""Shorten conversations to `max_length`: what may be dropped, and what is always kept."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence

from ...datasets_lyrics.conversations import Message
from ...processing_lyrics import parse_spatial_text

FEWEST_WORDS = 1  # that a shortened text keeps


class TooLongError(ValueError):
    """A conversation cannot be shortened to `max_length`."""


def truncate_conversation(
    messages: list[Message], measure: Callable[[list[Message]], int], max_length: int, learned_from: int = 0
) -> tuple[list[Message], int, set[int]]:
    """Shorten a conversation until it fits.

    First the oldest exchanges without an image are dropped, then texts lose words at their end, the longest first.
    Images, boxes and the last question are kept whole, and the last answer is never dropped.

    Args:
        messages: list of messages with blocks of text and images.
        measure: function of messages, returns the number of their tokens.
        max_length: int, largest number of tokens.
        learned_from: int, number of the first message whose answer is learned.

    Returns:
        The messages, the new `learned_from`, and the numbers of the answers that lost their end.

    Raises:
        TooLongError: when it does not fit, with both lengths.
    """
    if measure(messages) <= max_length:
        return messages, learned_from, set()
    messages = copy.deepcopy(messages)
    while measure(messages) > max_length and (place := _find_exchange(messages)) is not None:
        del messages[place : place + 2]
        learned_from = max(0, learned_from - 2) if place < learned_from else learned_from
    shortened: set[int] = set()
    for number, block in _by_length(messages):
        over = measure(messages) - max_length
        if over <= 0:
            break
        if _shorten(block, messages, measure, max_length) and messages[number]["role"] == "assistant":
            shortened.add(number)
    if (length := measure(messages)) > max_length:
        raise TooLongError(
            f"The conversation takes {length} tokens at the least, with its images, boxes and last question, and "
            f"max_length is {max_length}."
        )
    return messages, learned_from, shortened


def _find_exchange(messages: Sequence[Message]) -> int | None:
    """Return the place of the oldest question with an answer, without an image, and with a question after it."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "user")
    for number, message in enumerate(messages[:last]):
        follows = number + 1 < len(messages) and messages[number + 1]["role"] == "assistant"
        has_image = any(block["type"] == "image" for block in message["content"])
        if message["role"] == "user" and follows and not has_image:
            return number
    return None


def _by_length(messages: Sequence[Message]) -> list[tuple[int, Message]]:
    """Return the text blocks that may be shortened, with the number of their message, the longest first."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "user")
    texts = [
        (number, block)
        for number, message in enumerate(messages)
        for block in message["content"]
        if block["type"] == "text" and number != last
    ]
    return sorted(texts, key=lambda pair: -len(pair[1]["text"]))


def _shorten(block: Message, messages: list[Message], measure: Callable[[list[Message]], int], limit: int) -> bool:
    """Remove just enough words from the end of a text, never a part of a box; return whether it changed."""
    text = block["text"]
    ends = _word_ends(text)
    low, high = FEWEST_WORDS, len(ends)  # bounds of the number of words that are kept
    if high <= low:
        return False
    while low < high:
        middle = (low + high + 1) // 2
        block["text"] = text[: ends[middle - 1]]
        low, high = (middle, high) if measure(messages) <= limit else (low, middle - 1)
    block["text"] = text[: ends[low - 1]]
    return block["text"] != text


def _word_ends(text: str) -> list[int]:
    """Return the places where a text may be cut: after a word that is not within a box."""
    spans = (found.span for found in parse_spatial_text(text).objects)
    inside = {place for start, end in spans for place in range(start + 1, end)}
    ends = [match.end() for match in re.finditer(r"\S+", text)] + [len(text)] * text[-1:].isspace()
    return [place for place in ends if place not in inside]
