"""Conversations of rows with their images, objects and boxes: what training on answers and on rewards share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from PIL import Image
from transformers.utils import logging

from ...datasets_lyrics.conversations import Conversation, Message, box_blocks
from ...datasets_lyrics.row_boxes import BoxUnits, in_order, read_boxes
from ...processing_lyrics import LyricsProcessor, VisualObjects, format_box, format_object
from ...utils.seeding import generator
from ..common.data_arguments import require_one_of
from .augmentation import Augmentation, Move
from .datasets import FromDataSet

logger = logging.get_logger(__name__)


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
class ConversationReader:
    """Reader of the images, objects and boxes of conversations.

    Args:
        processor: processor that loads the images.
        seed: seed of augmentation, together with the epoch and the sample's name.
        box_units: units of boxes (xyxy) in rows: `"relative"` in [0, 1], or `"pixel"` of the upright image. A row may
            state its own in `box_units`, as those of the catalog do.
        augmentation: flips and crops; boxes and stored objects move with the image.
        objects_column: name of the column with the visual objects of the row's images.

    Raises:
        ValueError: if `box_units` is unknown.
    """

    processor: LyricsProcessor
    seed: int = 42
    box_units: BoxUnits = "relative"
    augmentation: Augmentation = field(default_factory=Augmentation)
    objects_column: str = "visual_objects"

    def __post_init__(self) -> None:
        require_one_of("box_units", self.box_units, get_args(BoxUnits))

    def units_of(self, row: Mapping[str, Any]) -> str:
        """Return the units of the boxes in a row."""
        return row.get("box_units") or self.box_units

    def prepare(
        self, conversation: Conversation, row: Mapping[str, Any], sample: str, epoch: int = 0
    ) -> PreparedConversation:
        """Load the images and the objects of a conversation, and augment them.

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
        boxes = read_boxes(conversation, [image.size for image in images], self.units_of(row))
        ordered = put_in_order([box for _, box in boxes], sample)
        boxes = [(number, box) for (number, _), box in zip(boxes, ordered, strict=True)]
        random = generator(self.seed, epoch, sample, "augmentation")
        moves = [
            self.augmentation.draw([box for place, box in boxes if place == number], random)
            for number in range(len(images))
        ]
        self._write_boxes(conversation, boxes, moves, images)
        if any(move.changes for move in moves):
            objects = self._look_up(objects, moves, images)
            objects = [
                None if found is None else move.objects(found, image.size)
                for found, move, image in zip(objects, moves, images, strict=True)
            ]
            images = [move.picture(image) for move, image in zip(moves, images, strict=True)]
        source = str(row.get("dataset") or "")
        messages, learned_from = conversation.messages, conversation.learned_from
        return PreparedConversation(sample, messages, images, objects, learned_from, set(), source=source)

    def _read_objects(self, row: Mapping[str, Any], count: int) -> list[VisualObjects | None]:
        given = row.get(self.objects_column)
        if given is None:
            return [None] * count
        given = list(given) if isinstance(given, list | tuple) else [given]
        if len(given) != count:
            raise ValueError(f"The row has visual objects for {len(given)} images, but {count} images.")
        return [VisualObjects.from_dict(one) if isinstance(one, Mapping) else one for one in given]

    def _look_up(
        self, objects: Sequence[VisualObjects | None], moves: Sequence[Move], images: Sequence[Image.Image]
    ) -> list[VisualObjects | None]:
        """Return the objects with those of the store, which knows an image only before it is moved."""
        store = self.processor.store
        return [
            store.lookup(image) if store is not None and found is None and move.changes else found
            for found, move, image in zip(objects, moves, images, strict=True)
        ]

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


def put_in_order(boxes: Sequence[list[float]], sample: str) -> list[list[float]]:
    """Return boxes with their corners in order; log, once for a row, that some were not.

    Args:
        boxes: sequence of x1, y1, x2, y2 in [0, 1].
        sample: name of the row.
    """
    ordered = [in_order(box) for box in boxes]
    for given, box in zip(boxes, ordered, strict=True):
        if given != box:
            logger.warning_once(
                f"Row {sample}: the corners of the box {given} (in [0, 1]) are not in order, and it is read as {box}. "
                "Boxes are x1, y1, x2, y2: are these x, y, width and height?"
            )
            break
    return ordered


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
