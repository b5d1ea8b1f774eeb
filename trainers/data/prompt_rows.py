"""Rows for training with rewards: a prompt with its images, and what a right answer holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...datasets_lyrics.conversations import Message, read_prompt
from ...datasets_lyrics.expected_answers import check_expected
from ...processing_lyrics import VisualObjects
from ...processing_lyrics.spatial_text import parse_spatial_text
from ..rewards import NUMBER_WORDS, plain
from .conversation_rows import ConversationReader, put_in_order, with_images
from .datasets import FromDataSet

# Columns that the prompt is made of, and that no reward reads.
_OF_PROMPT = {"messages", "conversations", "prompt", "completion", "question", "boxes", "image", "images"}

_YES_OR_NO = re.compile(r"(yes|no)($|\s*[,.;:!]|\s+(there|it|he|she|they|this|that|these|those|i|you|we)\b)")


@dataclass
class PreparedPrompt(FromDataSet):
    """Row that is ready for generation.

    Attributes:
        sample: name of the row in messages.
        messages: messages up to the question, with blocks of text, and of images that hold an RGB image.
        objects: visual objects of each image, or `None` if the processor must still find them.
        columns: further columns of the row, and those of `EXPECTED`.
    """

    sample: str
    messages: list[Message]
    objects: list[VisualObjects | None]
    columns: dict[str, Any]


@dataclass
class PromptReader:
    """Reader of rows for training with rewards.

    A row has a prompt as in `read_prompt`, and what is expected of the answer in the columns `EXPECTED`. A row without
    these columns that ends with a right answer, such as a row of the second stage, expects what `expect_answer` reads
    in it.

    Args:
        reader: reader of images, objects and boxes.
        columns: names of columns of which a row must have one, or none if rewards read other columns too.
        template_options: mapping of variables of the chat template, such as `enable_thinking`.
    """

    reader: ConversationReader
    columns: Sequence[str] = ()
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, row: Mapping[str, Any], sample: str, epoch: int = 0) -> PreparedPrompt:
        """Read the prompt of a row, its images and objects, and what is expected of the answer.

        Raises:
            ValueError: if the row cannot be used; the message gives the reason.
        """
        conversation = read_prompt(row)
        prepared = self.reader.prepare(conversation, row, sample, epoch)
        # TRL copies prompts, and an image that is still tied to its file cannot be copied (Pillow's PngImageFile).
        prepared.images = [image.copy() for image in prepared.images]
        messages = with_images(prepared)
        asked, answers = messages[: conversation.learned_from], messages[conversation.learned_from :]
        # So that a prompt that the template refuses is named with its row. How it writes answers does not matter here.
        self.reader.processor.apply_chat_template(asked, add_generation_prompt=True, **self.template_options)
        in_pixels = self.reader.units_of(row) == "pixel"
        size = prepared.images[0].size if in_pixels and prepared.images else (1, 1)
        expected = check_expected(row, size)
        if expected["expected_boxes"] is not None:
            expected["expected_boxes"] = [tuple(box) for box in put_in_order(expected["expected_boxes"], sample)]
        if answers and all(value is None for value in expected.values()):
            text = "".join(block["text"] for block in answers[0]["content"] if block["type"] == "text")
            expected |= expect_answer(text)
        if self.columns and all(expected.get(name) is None for name in self.columns):
            raise ValueError(
                f"No reward scores the row: it needs one of {', '.join(self.columns)}, or an answer to read it from."
            )
        skipped = _OF_PROMPT | {self.reader.objects_column}
        columns = {name: value for name, value in row.items() if name not in skipped}
        return PreparedPrompt(sample, asked, prepared.objects, columns | expected, source=prepared.source)


def expect_answer(answer: str) -> dict[str, Any]:
    """Return what a right answer lets a row expect, as one of the columns `EXPECTED`.

    An answer with boxes gives `expected_boxes`, one that is a whole number `expected_count`, one that begins with yes
    or no as a clause of its own (`No`, `Yes, it is`, but not `No parking`) `expected_existence`, and any other text
    `expected_answer`.
    """
    if boxes := [one.box for one in parse_spatial_text(answer).objects]:
        return {"expected_boxes": boxes}
    text = plain(answer).lower()
    if _YES_OR_NO.match(text):
        return {"expected_existence": text.startswith("yes")}
    if text.isdecimal() or text in NUMBER_WORDS:
        return {"expected_count": int(NUMBER_WORDS.get(text, text))}
    return {"expected_answer": answer}
