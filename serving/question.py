"""A question as the model receives it: messages of text and places, with loaded images and their objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..datasets_lyrics.conversations import Conversation, Message, box_blocks
from ..processing_lyrics import LyricsProcessor, VisualObjects, format_box, format_object
from ..processing_lyrics.chat_templates import instructions_of_messages
from ..processing_lyrics.picture_cache import OpenedPicture
from ..processing_lyrics.visual_objects import flatten_objects

_BLANK = Image.new("RGB", (8, 8))


@dataclass(frozen=True)
class Question:
    """A conversation whose last message is to be answered. N images.

    Attributes:
        messages: list of messages whose blocks are texts, and images without their image.
        opened: list of N images, in the order of their blocks.
        objects: list of N `VisualObjects`, or `None` where the refiner is to be asked.
    """

    messages: list[Message]
    opened: list[OpenedPicture]
    objects: list[VisualObjects | None]

    @classmethod
    def open(
        cls,
        conversation: Conversation,
        processor: LyricsProcessor,
        objects: Any = None,
    ) -> Question:
        """Load the images of a conversation, and write its boxes as text.

        Args:
            conversation: conversation, as `read_question` returns it.
            processor: processor of the model.
            objects: `VisualObjects` (or their dictionary) of the one image, or a list of them or `None`, one for
                each image.

        Raises:
            ValueError: an image cannot be read, a box is not in [0, 1], or images and objects differ in number.
        """
        for block in list(box_blocks(conversation.messages)):
            _write_box(block)
        opened = processor.open_pictures(conversation.pictures)
        return cls(conversation.messages, opened, _list_objects(objects, len(opened)))

    @property
    def pictures(self) -> list[Image.Image]:
        """The N images, RGB."""
        return [one.picture for one in self.opened]

    def instructions(self) -> list[str]:
        """Return, for each image, the text of the message that holds it."""
        return instructions_of_messages(self.messages)

    def messages_with(self, pictures: Sequence[Image.Image]) -> list[Message]:
        """Return the messages with images in their blocks."""
        images = iter(pictures)
        return [
            {
                **message,
                "content": [
                    {"type": "image", "image": next(images)} if block["type"] == "image" else dict(block)
                    for block in message["content"]
                ],
            }
            for message in self.messages
        ]


def prepare_inputs(
    processor: LyricsProcessor,
    questions: Sequence[Question],
    objects: Sequence[Sequence[VisualObjects | None]],
    is_needed: Sequence[Sequence[bool]] | None = None,
    is_shown: Sequence[Sequence[bool]] | None = None,
) -> dict[str, Any]:
    """Return the model inputs of questions, padded on the left.

    Args:
        processor: processor of the model.
        questions: sequence of questions.
        objects: sequence of the objects of each question's images.
        is_needed: flags of each question's images, whether their tensors are wanted. In place of other images, which
            the model has encoded before, a blank one is prepared: the prompt is the same.
        is_shown: flags of the same form, whether the pixels are wanted, too; by default those of what is needed.
    """
    needed = [[True] * len(one.opened) for one in questions] if is_needed is None else is_needed
    shown = needed if is_shown is None else is_shown
    conversations, flat = [], []
    for question, found, flags, visible in zip(questions, objects, needed, shown, strict=True):
        pictures = zip(question.opened, visible, strict=True)
        conversations.append(question.messages_with([one.picture if flag else _BLANK for one, flag in pictures]))
        flat += [one if flag or one is None else VisualObjects() for one, flag in zip(found, flags, strict=True)]
    options: dict[str, Any] = {"padding": True}
    if any(one is not None for one in flat):
        options["visual_objects"] = flat
    return processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def encoding_keys(
    question: Question, objects_keys: Sequence[Hashable], mqformer_text: str
) -> list[tuple[Hashable, ...]]:
    """Return what decides the encoding of each image: its pixels, its objects, and the text beside it."""
    texts = question.instructions() if mqformer_text != "none" else [""] * len(question.opened)
    return list(zip([one.key for one in question.opened], objects_keys, texts, strict=True))


def picture_of(encoding_key: tuple[Hashable, ...]) -> Hashable:
    """Return what decides the pixels of an encoding: the first part of its key."""
    return encoding_key[0]


def hash_objects(objects: VisualObjects) -> bytes:
    """Return a hash of everything in visual objects that a model reads."""
    digest = hashlib.sha256(json.dumps(objects.labels).encode())
    for array in (objects.boxes, objects.scores, objects.region_features):
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _list_objects(objects: Any, count: int) -> list[VisualObjects | None]:
    """Return given objects as a list with one entry for each image."""
    if objects is None:
        return [None] * count
    given = flatten_objects(objects)
    if len(given) != count:
        raise ValueError(f"Got visual objects for {len(given)} images, but {count} images.")
    return given


def _write_box(block: Message) -> None:
    """Replace a block of a box, in place, with its text."""
    try:
        box = [float(value) for value in block["box"]]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4 or not all(0 <= value <= 1 for value in box):
        raise ValueError(f"A box of a question must be [x1, y1, x2, y2] in [0, 1], got {block['box']!r:.100}.")
    label = block.get("label")
    if not isinstance(label, str | None):
        raise ValueError(f"The label of a box must be text, got {label!r:.100}.")
    text = format_object(label, box) if label else format_box(box)
    block.clear()
    block.update({"type": "text", "text": text})
