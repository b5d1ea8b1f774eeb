"""Rows of conversations -> batches of the second stage: answers are labels, and the MQ-Former reads questions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..datasets_lyrics.conversations import Conversation, Message, box_blocks, outline, read_conversation
from ..processing_lyrics import LyricsProcessor, VisualObjects, format_box, format_object
from .data.augmentation import Augmentation, Move
from .data.conversation_truncation import truncate_conversation
from .data.datasets import FromDataSet, describe_rows
from .data.seeding import generator

BoxUnits = Literal["relative", "pixel"]
IGNORE_INDEX = -100
SLACK = 0.01  # how far a relative coordinate may lie outside [0, 1]


@dataclass
class PreparedConversation(FromDataSet):
    """A row that is ready to be put into a batch.

    Attributes:
        sample: its name in random draws and in messages.
        messages: with blocks of text and pictures.
        pictures: upright and RGB, in the order of their blocks.
        objects: for each picture what the refiner saw, or `None` where it is still to be asked.
        learned_from: the number of the first message whose answer is learned.
        shortened: numbers of answers that lost their end, and must not teach to stop there.
    """

    sample: str
    messages: list[Message]
    pictures: list[Image.Image]
    objects: list[VisualObjects | None]
    learned_from: int
    shortened: set[int]


class LyricsSFTCollator:
    """Makes batches for the second stage.

    Labels are the answers of the assistant, each with the end-of-sequence token after it; of rows with `prompt` and
    `completion`, those of the completion. The MQ-Former reads, for each picture, the message that holds it and, as the
    processor's `mqformer_text` says, the picture's objects as text: never an answer.

    Args:
        processor: its chat template must mark what the assistant says (`{% generation %}`), as Lyrics' own do.
        max_length: longer conversations are shortened, see `truncate_conversation`; `None` for no limit.
        seed: of augmentation; with the epoch and the sample's name it decides it.
        box_units: of boxes in rows, `"relative"` in [0, 1] or `"pixel"` of the upright picture; always xyxy.
        augmentation: flips and crops; boxes and stored objects move with the picture.
        objects_column: visual objects of the row's pictures, where they are stored.
    """

    def __init__(
        self,
        processor: LyricsProcessor,
        max_length: int | None = None,
        seed: int = 42,
        box_units: BoxUnits = "relative",
        augmentation: Augmentation | None = None,
        objects_column: str = "visual_objects",
    ) -> None:
        if box_units not in ("relative", "pixel"):
            raise ValueError(f"box_units must be 'relative' or 'pixel', got {box_units!r}.")
        if "generation" not in str(processor.chat_template):
            raise ValueError("The chat template does not mark what the assistant says with {% generation %}.")
        self.processor = processor
        self.max_length = max_length
        self.seed = seed
        self.box_units: BoxUnits = box_units
        self.augmentation = augmentation or Augmentation()
        self.objects_column = objects_column

    def prepare(self, row: Mapping[str, Any], sample: str | None = None, epoch: int = 0) -> PreparedConversation:
        """Read a row: its conversation, pictures and objects, moved and shortened as they are to be learned.

        Args:
            row: see `read_conversation`.
            sample: the row's name.
            epoch: in which the row is used.

        Raises:
            ValueError: when the row cannot be used, with the reason.
        """
        sample = "row" if sample is None else sample
        conversation = read_conversation(row)
        pictures = self.processor.load_pictures(conversation.pictures)
        objects = self._read_objects(row, len(pictures))
        boxes = self._read_boxes(conversation, pictures)
        moves = self._draw_moves(boxes, len(pictures), sample, epoch)
        self._write_boxes(conversation, boxes, moves, pictures)
        if any(move.changes for move in moves):
            objects = [
                None if seen is None else move.objects(seen, picture.size)
                for seen, move, picture in zip(objects, moves, pictures, strict=True)
            ]
            pictures = [move.picture(picture) for move, picture in zip(moves, pictures, strict=True)]
        messages, learned_from, shortened = conversation.messages, conversation.learned_from, set[int]()
        if self.max_length is not None:
            messages, learned_from, shortened = truncate_conversation(
                messages, self._count_tokens, self.max_length, learned_from
            )
        return PreparedConversation(sample, messages, pictures, objects, learned_from, shortened)

    def _read_objects(self, row: Mapping[str, Any], count: int) -> list[VisualObjects | None]:
        given = row.get(self.objects_column)
        if given is None:
            return [None] * count
        given = list(given) if isinstance(given, list | tuple) else [given]
        if len(given) != count:
            raise ValueError(f"The row has visual objects for {len(given)} pictures, but {count} pictures.")
        return [VisualObjects.from_dict(one) if isinstance(one, Mapping) else one for one in given]

    def _read_boxes(self, conversation: Conversation, pictures: Sequence[Image.Image]) -> list[tuple[int, list[float]]]:
        """For each box of the conversation its picture, and itself in [0, 1] of it."""
        found = []
        for block in box_blocks(conversation.messages):
            number = block.get("image", 0 if len(pictures) == 1 else None)
            if number is None or not 0 <= number < len(pictures):
                raise ValueError(f"A box is of picture {number}, and the row has {len(pictures)}: set its `image`.")
            box = np.asarray(block["box"], np.float64).reshape(-1)
            if self.box_units == "pixel":
                box = box / np.array(pictures[number].size * 2) if len(box) == 4 else box
            if len(box) != 4 or not np.isfinite(box).all() or (box < -SLACK).any() or (box > 1 + SLACK).any():
                raise ValueError(
                    f"The box {block['box']} is not x1, y1, x2, y2 within a picture of {pictures[number].size} pixels "
                    f"(box_units={self.box_units!r})."
                )
            box = box.clip(0.0, 1.0)
            found.append((number, [*np.minimum(box[:2], box[2:]).tolist(), *np.maximum(box[:2], box[2:]).tolist()]))
        return found

    def _draw_moves(self, boxes: Sequence[tuple[int, list[float]]], count: int, sample: str, epoch: int) -> list[Move]:
        random = generator(self.seed, epoch, sample, "augmentation")
        spoken_of = [[box for place, box in boxes if place == number] for number in range(count)]
        return [self.augmentation.draw(own, random) for own in spoken_of]

    def _write_boxes(
        self,
        conversation: Conversation,
        boxes: Sequence[tuple[int, list[float]]],
        moves: Sequence[Move],
        pictures: Sequence[Image.Image],
    ) -> None:
        """Every box becomes the spatial text of the whole project."""
        for block, (number, box) in zip(list(box_blocks(conversation.messages)), boxes, strict=True):
            if moves[number].changes:
                box = moves[number].boxes(np.array([box]), pictures[number].size)[0].tolist()
            text = format_box(box) if "label" not in block else format_object(block["label"], box)
            block.clear()
            block.update({"type": "text", "text": text})

    def measure(self, row: Mapping[str, Any]) -> int:
        """About how many tokens a row takes, without its pictures being opened; for `group_by_length`."""
        texts, pictures, boxes = outline(row)
        texts.append(format_box([0.0, 0.0, 1.0, 1.0]))
        ids = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        tokens = sum(map(len, ids[:-1])) + boxes * len(ids[-1]) + pictures * self.processor.num_query_tokens
        return tokens if self.max_length is None else min(tokens, self.max_length)

    def _count_tokens(self, messages: list[Message]) -> int:
        """Tokens of a conversation, its pictures included."""
        prompt = self.processor.apply_chat_template(messages)
        images = prompt.count(self.processor.image_token)
        ids = self.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return len(ids) + images * (self.processor.num_query_tokens - 1)

    def __call__(self, rows: Sequence[PreparedConversation | Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of B rows.

        Returns:
            The arguments of `LyricsForConditionalGeneration.forward`, right-padded, with `labels` (B, L) int64; and
            what `describe_rows` says of the rows.
        """
        prepared = [row if isinstance(row, PreparedConversation) else self.prepare(row) for row in rows]
        objects = [seen for row in prepared for seen in row.objects]
        options: dict[str, Any] = {"padding": True, "padding_side": "right"}
        if any(seen is not None for seen in objects):
            options["visual_objects"] = objects
        batch = self.processor.apply_chat_template(
            [_with_pictures(row) for row in prepared],
            tokenize=True,
            return_dict=True,
            return_tensors="np",  # whose offsets are faster to walk through than a tensor's
            return_assistant_tokens_mask=True,
            processor_kwargs=options,
        )
        batch = {name: torch.from_numpy(np.asarray(values)) for name, values in batch.items()}
        batch["labels"] = self._label(batch, batch.pop("assistant_masks").bool(), prepared)
        return batch | describe_rows(prepared)

    def _label(self, batch: dict[str, Any], spoken: Any, rows: Sequence[PreparedConversation]) -> torch.Tensor:
        """(B, L) int64: the answers that are learned; a shortened one without its end-of-sequence token."""
        spoken = torch.as_tensor(spoken).bool() & batch["attention_mask"].bool()
        labels = batch["input_ids"].masked_fill(~spoken, IGNORE_INDEX)
        labels = labels.masked_fill(labels == self.processor.image_token_id, IGNORE_INDEX)
        for index, row in enumerate(rows):
            turns = [number for number, message in enumerate(row.messages) if message["role"] == "assistant"]
            if row.learned_from == 0 and not row.shortened:
                continue
            for number, (start, end) in zip(turns, _runs(spoken[index]), strict=True):
                if number < row.learned_from:
                    labels[index, start:end] = IGNORE_INDEX
                elif number in row.shortened:
                    labels[index, end - 1] = IGNORE_INDEX
        return labels


def _with_pictures(row: PreparedConversation) -> list[Message]:
    """The messages with the pictures in their blocks."""
    pictures = iter(row.pictures)
    return [
        {
            **message,
            "content": [
                {"type": "image", "image": next(pictures)} if block["type"] == "image" else block
                for block in message["content"]
            ],
        }
        for message in row.messages
    ]


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Where the runs of True begin and end."""
    edges = torch.diff(torch.nn.functional.pad(mask.int(), (1, 1))).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
