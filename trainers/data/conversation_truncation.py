"""Conversations that are too long: what is taken from them, and what never is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from ...datasets_lyrics.conversations import Message
from ...processing_lyrics import parse_spatial_text

FEWEST_WORDS = 1  # what is left of a text that is shortened


class TooLongError(ValueError):
    """A conversation cannot be made as short as it must be."""


def fit_conversation(
    messages: list[Message], measure: Callable[[list[Message]], int], max_length: int, learned_from: int = 0
) -> tuple[list[Message], int, set[int]]:
    """Shorten a conversation until it fits.

    First the oldest exchanges without a picture go, then texts lose words at their end, the longest first. Pictures,
    boxes and the last question are never touched, nor is the last answer taken away.

    Args:
        messages: whose contents are blocks of text and pictures.
        measure: how many tokens a conversation takes.
        max_length: the most it may take.
        learned_from: the number of the first message whose answer is learned.

    Returns:
        The messages, the new `learned_from`, and the numbers of those answers that lost their end.

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
            f"The conversation takes {length} tokens at the least, with its pictures, boxes and last question, and "
            f"max_length is {max_length}."
        )
    return messages, learned_from, shortened


def _find_exchange(messages: Sequence[Message]) -> int | None:
    """Where the oldest question stands that has an answer, no picture, and another question after it."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "user")
    for number, message in enumerate(messages[:last]):
        follows = number + 1 < len(messages) and messages[number + 1]["role"] == "assistant"
        if message["role"] == "user" and follows and not _holds(message, "image"):
            return number
    return None


def _holds(message: Message, kind: str) -> bool:
    return any(block["type"] == kind for block in message["content"])


def _by_length(messages: Sequence[Message]) -> list[tuple[int, Message]]:
    """Blocks of text that may be shortened, with the number of their message, the longest first."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "user")
    texts = [
        (number, block)
        for number, message in enumerate(messages)
        for block in message["content"]
        if block["type"] == "text" and number != last
    ]
    return sorted(texts, key=lambda pair: -len(pair[1]["text"]))


def _shorten(block: Message, messages: list[Message], measure: Callable[[list[Message]], int], limit: int) -> bool:
    """Take as few words off the end of a text as it needs for all to fit; what is within a box stays or goes whole."""
    text = block["text"]
    ends = _word_ends(text)
    low, high = FEWEST_WORDS, len(ends)  # so many words are left
    if high <= low:
        return False
    while low < high:
        middle = (low + high + 1) // 2
        block["text"] = text[: ends[middle - 1]]
        low, high = (middle, high) if measure(messages) <= limit else (low, middle - 1)
    block["text"] = text[: ends[low - 1]]
    return block["text"] != text


def _word_ends(text: str) -> list[int]:
    """Where a text may be cut: after a word that is not within a box."""
    spans = [found.span for found in parse_spatial_text(text).objects]
    ends, inside = [], iter(spans)
    span: Any = next(inside, None)
    for place in range(1, len(text) + 1):
        while span is not None and place >= span[1] + 1:
            span = next(inside, None)
        is_end = place == len(text) or (text[place].isspace() and not text[place - 1].isspace())
        if is_end and not (span is not None and span[0] < place < span[1]):
            ends.append(place)
    return ends
