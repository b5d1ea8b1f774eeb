"""Collator of the second stage: rows of conversations become batches whose labels are the assistant's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from ..datasets_lyrics.conversations import Conversation, Message, box_blocks, outline, read_conversation
from ..processing_lyrics import LyricsProcessor, VisualObjects, format_box, format_object
from ..utils.seeding import generator
from .common.data_arguments import hint_at_store, require_one_of
from .data.answer_spans import AnswerFinder
from .data.augmentation import Augmentation, Move
from .data.conversation_truncation import truncate_conversation
from .data.datasets import FromDataSet, describe_rows

logger = logging.get_logger(__name__)

BoxUnits = Literal["relative", "pixel"]
IGNORE_INDEX = -100
TOLERANCE = 0.01  # how far a relative coordinate may lie outside [0, 1]


@dataclass
class PreparedConversation(FromDataSet):
    """Row that is ready for a batch.

    Attributes:
        sample: name of the row in random draws and in messages.
        messages: messages with blocks of text and images.
        images: upright RGB images, in the order of their blocks.
        objects: visual objects of each image, or `None` if the processor must still find them.
        learned_from: index of the first message whose answer is learned.
        shortened: indices of answers that lost their end, so that they must not teach the model to stop there.
    """

    sample: str
    messages: list[Message]
    images: list[Image.Image]
    objects: list[VisualObjects | None]
    learned_from: int
    shortened: set[int]


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
        require_one_of("box_units", self.box_units, ("relative", "pixel"))
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
        return self.prepare_conversation(conversation, row, sample, epoch)

    def prepare_conversation(
        self, conversation: Conversation, row: Mapping[str, Any], sample: str, epoch: int = 0
    ) -> PreparedConversation:
        """Load the images and the objects of a conversation that was read, as `prepare` does.

        Args:
            conversation: conversation of the row; its blocks of boxes become text.
            row: mapping with the objects of the images and the units of the boxes, where it has them.
            sample: name of the row.
            epoch: epoch in which the row is used.

        Raises:
            ValueError: if the row cannot be used; the message gives the reason.
        """
        images = self.processor.load_pictures(conversation.pictures)
        objects = self._read_objects(row, len(images))
        boxes = self._read_boxes(conversation, images, row.get("box_units") or self.box_units)
        random = generator(self.seed, epoch, sample, "augmentation")
        moves = [
            self.augmentation.draw([box for place, box in boxes if place == number], random)
            for number in range(len(images))
        ]
        self._write_boxes(conversation, boxes, moves, images)
        if any(move.changes for move in moves):
            objects = [
                None if found is None else move.objects(found, image.size)
                for found, move, image in zip(objects, moves, images, strict=True)
            ]
            images = [move.picture(image) for move, image in zip(moves, images, strict=True)]
        messages, learned_from, shortened = conversation.messages, conversation.learned_from, set[int]()
        if self.max_length is not None:
            messages, learned_from, shortened = truncate_conversation(
                messages, self._count_tokens, self.max_length, learned_from
            )
        self.answers.check(messages)
        source = str(row.get("dataset") or "")
        return PreparedConversation(sample, messages, images, objects, learned_from, shortened, source=source)

    def _read_objects(self, row: Mapping[str, Any], count: int) -> list[VisualObjects | None]:
        given = row.get(self.objects_column)
        if given is None:
            return [None] * count
        given = list(given) if isinstance(given, list | tuple) else [given]
        if len(given) != count:
            raise ValueError(f"The row has visual objects for {len(given)} images, but {count} images.")
        return [VisualObjects.from_dict(one) if isinstance(one, Mapping) else one for one in given]

    def _read_boxes(
        self, conversation: Conversation, images: Sequence[Image.Image], units: str
    ) -> list[tuple[int, list[float]]]:
        """Return the number of its image and the coordinates in [0, 1] for each box of the conversation."""
        require_one_of("box_units", units, ("relative", "pixel"))
        found = []
        for block in box_blocks(conversation.messages):
            number = block.get("image", 0 if len(images) == 1 else None)
            if not isinstance(number, int) or not 0 <= number < len(images):
                raise ValueError(
                    f"A box has the image number {number}, and the row has {len(images)}: set its `image`."
                )
            try:
                box = np.asarray(block["box"], np.float64).reshape(-1)
            except (TypeError, ValueError) as error:
                raise ValueError(f"The box {block['box']!r:.100} is no list of numbers: {error}") from error
            if units == "pixel":
                box = box / np.array(images[number].size * 2) if len(box) == 4 else box
            if len(box) != 4 or not np.isfinite(box).all() or (box < -TOLERANCE).any() or (box > 1 + TOLERANCE).any():
                raise ValueError(
                    f"The box {block['box']} is not x1, y1, x2, y2 within an image of {images[number].size} pixels "
                    f"(box_units={units!r})."
                )
            box = box.clip(0.0, 1.0)
            found.append((number, [*np.minimum(box[:2], box[2:]).tolist(), *np.maximum(box[:2], box[2:]).tolist()]))
        return found

    def _write_boxes(
        self,
        conversation: Conversation,
        boxes: Sequence[tuple[int, list[float]]],
        moves: Sequence[Move],
        images: Sequence[Image.Image],
    ) -> None:
        """Replace every block of a box, in place, with its spatial text after augmentation."""
        for block, (number, box) in zip(list(box_blocks(conversation.messages)), boxes, strict=True):
            if moves[number].changes:
                box = moves[number].boxes(np.array([box]), images[number].size)[0].tolist()
            text = format_box(box) if "label" not in block else format_object(block["label"], box)
            block.clear()
            block.update({"type": "text", "text": text})

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
    for number, message in enumerate(conversation.messages[conversation.learned_from :], conversation.learned_from):
        if message["role"] != "assistant":
            continue
        if not any(block["type"] == "box" or block["text"].strip() for block in message["content"]):
            logger.warning_once(
                f"Row {sample}: message {number} is an empty answer: it teaches the model to end at once."
            )


def with_images(row: PreparedConversation) -> list[Message]:
    """Return the messages of a row with the images in their blocks."""
    images = iter(row.images)
    return [
        {
            **message,
            "content": [
                {"type": "image", "image": next(images)} if block["type"] == "image" else block
                for block in message["content"]
            ],
        }
        for message in row.messages
    ]


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Return the start and the end of each run of True in a mask (L,)."""
    edges = torch.diff(torch.nn.functional.pad(mask.int(), (1, 1))).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
