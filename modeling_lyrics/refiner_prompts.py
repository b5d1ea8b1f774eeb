"""Prompts of the detector: captions of several tags, and the tag that each token of a caption belongs to."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)

# A fast tokenizer keeps the padding of a call, so that the calls of two threads would mix them up.
TOKENIZING = threading.RLock()

# The detector reads "." and "?" as the end of a phrase; half of a character is no text.
_PHRASE_ENDS = re.compile(r"[.?\s\ud800-\udfff]+")


@dataclass(frozen=True)
class TagPrompt:
    """A caption for the detector.

    Attributes:
        caption: lower-case text that ends with a full stop.
        tag_of_token: tuple of the index of each token's tag in the given list, or -1; special tokens are counted.
    """

    caption: str
    tag_of_token: tuple[int, ...]


def tags_of_each(tags: Any, count: int) -> list[list[str]]:
    """Return the words to look for in each of `count` images; one flat list is used for every image.

    Raises:
        ValueError: there is no word list, the numbers of lists and images differ, or a word is not a string.
    """
    if not isinstance(tags, Sequence) or isinstance(tags, str | bytes):
        raise ValueError(f"tags must be a list of words, or one list for each image, got {tags!r:.80}.")
    if tags and all(isinstance(words, str) for words in tags):
        tags = [[str(word) for word in tags]] * count
    for words in tags:
        if not isinstance(words, Sequence) or isinstance(words, str | bytes):
            raise ValueError(f"tags must be all words or all lists of words, got {words!r:.80} among {tags!r:.80}.")
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise ValueError(f"tags must be strings, got {wrong[0]!r:.80}, a {type(wrong[0]).__name__}.")
    if len(tags) != count:
        raise ValueError(f"Got tags for {len(tags)} images, but {count} images.")
    return [list(words) for words in tags]


def build_prompts(
    tags: Sequence[str], tokenizer: PreTrainedTokenizerBase, separator: str, max_tokens: int
) -> list[TagPrompt]:
    """Join tags into as few captions as possible, each of at most `max_tokens` tokens and of whole tags.

    Full stops, question marks, line breaks and lone surrogates inside a tag become spaces. Tags that are equal then are
    asked for once, under the first one's index. Without tags there is one caption, ".", as in the published model.

    Raises:
        ValueError: a single tag is too long for a caption; the message names it.
    """
    unique: dict[str, int] = {}
    for position, tag in enumerate(tags):
        text = _PHRASE_ENDS.sub(" ", tag.lower()).strip()
        if text:
            unique.setdefault(text, position)
    prompts, group = [], []
    for text, position in unique.items():
        candidate = [*group, (text, position)]
        if group and _num_tokens(candidate, tokenizer, separator) > max_tokens:
            prompts.append(_build_prompt(group, tokenizer, separator))
            candidate = [(text, position)]
        if len(candidate) == 1 and (length := _num_tokens(candidate, tokenizer, separator)) > max_tokens:
            raise ValueError(f"The tag {tags[position][:80]!r} takes {length} tokens; the detector takes {max_tokens}.")
        group = candidate
    if group or not prompts:
        prompts.append(_build_prompt(group, tokenizer, separator))
    return prompts


def _caption(group: Sequence[tuple[str, int]], separator: str) -> str:
    """Return the caption of a group of tags."""
    return separator.join(text for text, _ in group) + "."


def _num_tokens(group: Sequence[tuple[str, int]], tokenizer: PreTrainedTokenizerBase, separator: str) -> int:
    """Return the number of tokens of a group's caption."""
    with TOKENIZING:
        return len(tokenizer(_caption(group, separator), split_special_tokens=True)["input_ids"])


def _build_prompt(group: Sequence[tuple[str, int]], tokenizer: PreTrainedTokenizerBase, separator: str) -> TagPrompt:
    """Return the prompt of a group of tags."""
    caption = _caption(group, separator)
    tag_of_character = [-1] * len(caption)
    start = 0
    for text, position in group:
        tag_of_character[start : start + len(text)] = [position] * len(text)
        start += len(text) + len(separator)
    with TOKENIZING:
        encoded = tokenizer(caption, split_special_tokens=True, return_offsets_mapping=True)
    return TagPrompt(
        caption,
        tuple(tag_of_character[begin] if end > begin else -1 for begin, end in encoded["offset_mapping"]),
    )
