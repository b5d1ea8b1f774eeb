"""Collator of the second stage: rows of conversations become batches whose labels are the assistant's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..datasets_lyrics.conversations import Conversation, Message, empty_answers, outline, read_conversation
from ..datasets_lyrics.row_boxes import BoxUnits
from ..processing_lyrics import LyricsProcessor, format_box
from .common.data_arguments import hint_at_store
from .data.answer_spans import AnswerFinder
from .data.augmentation import Augmentation
from .data.conversation_rows import ConversationReader, PreparedConversation, with_images
from .data.conversation_truncation import truncate_conversation
from .data.datasets import describe_rows

logger = logging.get_logger(__name__)

IGNORE_INDEX = -100


@dataclass
class LyricsSFTCollator:
    """Collator of the second stage.

    Labels are the answers of the assistant, each with the end-of-sequence token after it. In a row with `prompt` and
    `completion`, only answers of the completion are labels. For each image, the MQ-Former reads the message that holds
    it and, if the processor's `mqformer_text` says so, the image's objects as text. It never reads an answer.

    Args:
        processor: processor with a chat template whose answers `AnswerFinder` finds.
        max_length: longest conversation in tokens; longer ones are shortened (`truncate_conversation`). `None` for no
            limit.
        seed: seed of augmentation, together with the epoch and the sample's name.
        box_units: units of boxes (xyxy) in rows: `"relative"` in [0, 1], or `"pixel"` of the upright image. A row may
            state its own in `box_units`, as those of the catalog do.
        augmentation: flips and crops; boxes and stored objects move with the image.
        objects_column: name of the column with the visual objects of the row's images.

    Raises:
        ValueError: if `box_units` is unknown, or the answers cannot be found under the chat template.
    """

    processor: LyricsProcessor
    max_length: int | None = None
    seed: int = 42
    box_units: BoxUnits = "relative"
    augmentation: Augmentation = field(default_factory=Augmentation)
    objects_column: str = "visual_objects"

    def __post_init__(self) -> None:
        self._reader = ConversationReader(
            self.processor, self.seed, self.box_units, self.augmentation, self.objects_column
        )
        self.answers = AnswerFinder(self.processor)

    def prepare(self, row: Mapping[str, Any], sample: str | None = None, epoch: int = 0) -> PreparedConversation:
        """Read the conversation, the images and the objects of a row, augment them, and shorten the text.

        Args:
            row: mapping as in `read_conversation`.
            sample: name of the row.
            epoch: epoch in which the row is used.

        Raises:
            ValueError: if the row cannot be used; the message gives the reason.
        """
        sample = "row" if sample is None else sample
        conversation = read_conversation(row)
        _warn_of_empty_answers(conversation, sample)
        prepared = self._reader.prepare(conversation, row, sample, epoch)
        if self.max_length is not None:
            prepared.messages, prepared.learned_from, prepared.shortened = truncate_conversation(
                prepared.messages, self._count_tokens, self.max_length, prepared.learned_from
            )
        self.answers.check(prepared.messages)
        return prepared

    def measure(self, row: Mapping[str, Any]) -> int:
        """Return the approximate number of tokens of a row, without reading its images, for `group_by_length`."""
        texts, images, boxes = outline(row)
        texts.append(format_box([0.0, 0.0, 1.0, 1.0]))
        ids = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        tokens = sum(map(len, ids[:-1])) + boxes * len(ids[-1]) + images * self.processor.num_query_tokens
        return tokens if self.max_length is None else min(tokens, self.max_length)

    def _count_tokens(self, messages: list[Message]) -> int:
        """Return the number of tokens of a conversation, including those of its images."""
        prompt = self.answers.render(messages)
        images = prompt.count(self.processor.image_token)
        ids = self.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return len(ids) + images * (self.processor.num_query_tokens - 1)

    def __call__(self, rows: Sequence[PreparedConversation | Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of B rows.

        Returns:
            Dictionary with the arguments of `LyricsForConditionalGeneration.forward`, right-padded, `labels` (B, L)
            int64 among them, and the entries of `describe_rows`.
        """
        prepared = [row if isinstance(row, PreparedConversation) else self.prepare(row) for row in rows]
        objects = [one for row in prepared for one in row.objects]
        options: dict[str, Any] = {"padding": True, "padding_side": "right"}
        missing = [place for place, one in enumerate(objects) if one is None]
        if missing and (self.processor.has_refiner or self.processor.store is not None):
            hint_at_store(self.processor)
            images = [image for row in prepared for image in row.images]
            refined = self.processor.refine([images[place] for place in missing], progress=False)
            for place, found in zip(missing, refined, strict=True):
                objects[place] = found
        if any(one is not None for one in objects):
            options["visual_objects"] = objects
        batch = self.answers.encode([with_images(row) for row in prepared], options)
        batch = {name: torch.from_numpy(np.asarray(values)) for name, values in batch.items()}
        batch["labels"] = self._label(batch, batch.pop("assistant_masks").bool(), prepared)
        return batch | describe_rows(prepared)

    def _label(
        self, batch: dict[str, torch.Tensor], answers: torch.Tensor, rows: Sequence[PreparedConversation]
    ) -> torch.Tensor:
        """Return labels (B, L) int64: the answers (B, L) that are learned.

        An answer ends with the last special token that the template writes after it; white space behind it is not
        learned. A shortened answer loses that token.
        """
        answers = answers & batch["attention_mask"].bool()
        labels = batch["input_ids"].masked_fill(~answers, IGNORE_INDEX)
        labels = labels.masked_fill(labels == self.processor.image_token_id, IGNORE_INDEX)
        for index, row in enumerate(rows):
            if row.learned_from == 0 and not row.shortened and self.answers.ends_exactly:
                continue
            turns = [number for number, message in enumerate(row.messages) if message["role"] == "assistant"]
            for number, (start, end) in zip(turns, _runs(answers[index]), strict=True):
                last = self.answers.last_special(batch["input_ids"][index, start:end].tolist())
                stop = end - 1 if last is None else start + last
                if number < row.learned_from:
                    labels[index, start:end] = IGNORE_INDEX
                elif number in row.shortened:
                    labels[index, stop:end] = IGNORE_INDEX
                else:
                    labels[index, stop + 1 : end] = IGNORE_INDEX
        return labels


def _warn_of_empty_answers(conversation: Conversation, sample: str) -> None:
    """Log, once for a row, that an empty answer teaches the model to end its answers at once."""
    for number in empty_answers(conversation):
        logger.warning_once(f"Row {sample}: message {number} is an empty answer: it teaches the model to end at once.")


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Return the start and the end of each run of True in a mask (L,)."""
    edges = torch.diff(torch.nn.functional.pad(mask.int(), (1, 1))).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
