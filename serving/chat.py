"""A conversation about images, turn by turn, which can be saved as a row for `lyrics sft`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

from PIL import Image

from ..datasets_lyrics.conversations import Message
from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..utils.atomic_files import write_file
from .answer import Answer
from .answer_stream import AnswerStream


class Assistant(Protocol):
    """What a chat needs of `Lyrics`, which begins chats itself."""

    processor: LyricsProcessor

    def stream_messages(self, messages: Sequence[Any], *, objects: Any = None, **options: Any) -> AnswerStream:
        """Begin to answer the last message of a conversation."""
        ...


class Chat:
    """A conversation. The images are encoded once, and each turn goes on from the last one's keys and values.

    One thread at a time may use it.

    Args:
        assistant: `Lyrics`.
        image: image of any kind, list of several, or `None`; more may be added before each question.
        objects: `VisualObjects` of the image instead of refining it, or a list of one for each.
        options: fields of `GenerationOptions`, for all answers.

    Attributes:
        pictures: list of the images, RGB.
        objects: list of the `VisualObjects` that were given for them, or `None`.
    """

    def __init__(self, assistant: Assistant, image: Any = None, *, objects: Any = None, **options: Any) -> None:
        self.assistant = assistant
        self.options = options
        self.pictures: list[Image.Image] = []
        self.objects: list[VisualObjects | None] = []
        self._messages: list[Message] = []
        self._last: Answer | None = None
        self._open: tuple[Message, AnswerStream] | None = None  # a turn whose answer may still be written
        images = [] if image is None else list(image) if isinstance(image, list | tuple) else [image]
        given = list(objects) if isinstance(objects, list | tuple) else [objects] * len(images)
        if len(given) != len(images):
            raise ValueError(f"Got visual objects for {len(given)} images, but {len(images)} images.")
        for one, seen in zip(images, given, strict=True):
            self.add_image(one, seen)

    def add_image(self, image: Any, objects: VisualObjects | None = None) -> Image.Image:
        """Show an image with the next question, and return it as it was read.

        Raises:
            ValueError: it cannot be read.
        """
        self._settle()
        picture = self.assistant.processor.load_pictures([image])[0]
        self.pictures.append(picture)
        self.objects.append(objects)
        return picture

    def ask(self, question: str, *, boxes: Sequence[Sequence[float]] = (), **options: Any) -> Answer:
        """Answer a question, and remember both.

        Args:
            question: text.
            boxes: sequence of boxes behind the question, xyxy in pixels of the last image.
            options: fields of `GenerationOptions` for this answer.

        Raises:
            ValueError: the question is empty, or a box or an option is wrong; the conversation stays as it was.
        """
        return self.stream(question, boxes=boxes, **options).result()

    def stream(self, question: str, *, boxes: Sequence[Sequence[float]] = (), **options: Any) -> AnswerStream:
        """Begin to answer a question, and return the answer while it is written.

        If the answer is stopped, what was written of it is remembered; if nothing was, the question is forgotten.

        Args:
            question, boxes, options: arguments of `ask`.

        Raises:
            ValueError: the question is empty, or a box or an option is wrong; the conversation stays as it was.
        """
        self._settle()
        if not question.strip():
            raise ValueError("The question is empty.")
        blocks: list[Message] = [{"type": "image"} for _ in range(len(self.pictures) - self._shown())]
        blocks.append({"type": "text", "text": f"{question} " if boxes else question})
        number = len(self.pictures) - 1
        blocks += [{"type": "box", "box": self._relative(box), "image": number} for box in boxes]
        message = {"role": "user", "content": blocks}
        messages = self._with_images([*self._messages, message], "image", list(self.pictures))
        objects = self.objects if self.pictures else None
        stream = self.assistant.stream_messages(messages, objects=objects, **(self.options | options))
        self._open = message, stream
        return stream

    @property
    def messages(self) -> list[Message]:
        """Messages of blocks so far. Image blocks hold no image; box blocks hold the number of their image."""
        self._settle()
        return list(self._messages)

    @property
    def last(self) -> Answer | None:
        """The last answer, or `None`."""
        self._settle()
        return self._last

    def reset(self, keep_pictures: bool = True) -> None:
        """Forget all questions and answers.

        Args:
            keep_pictures: bool, whether the images are shown again with the next question.
        """
        self._settle()
        self._messages, self._last = [], None
        if not keep_pictures:
            self.pictures, self.objects = [], []

    def to_row(self) -> dict[str, Any]:
        """Return the conversation as a row that `lyrics sft` reads, with the images inside.

        Raises:
            ValueError: there is no answer yet.
        """
        if not self.messages:
            raise ValueError("The conversation has no answer yet.")
        encoded = [_to_base64(picture) for picture in self.pictures[: self._shown()]]
        return {"messages": self._with_images(self._messages, "base64", encoded)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation as one line of JSON, which `lyrics sft --train_data` reads (.jsonl or .json).

        Raises:
            ValueError: there is no answer yet.
            OSError: naming the file, if it cannot be written.
        """
        row = json.dumps(self.to_row(), ensure_ascii=False)
        with write_file(path, "w", encoding="utf-8") as file:
            file.write(f"{row}\n")

    def _settle(self) -> None:
        """Remember the turn whose answer is complete by now; wait for one that is still written."""
        if self._open is None:
            return
        message, stream = self._open
        try:
            answer = stream.result()
        except Exception:  # noqa: BLE001  (whoever read the stream got it)
            answer = None
        self._open = None
        if answer is not None and (answer.text or answer.finish_reason in ("stop", "length")):
            reply = {"role": "assistant", "content": [{"type": "text", "text": answer.text}]}
            self._messages += [message, reply]
            self._last = answer

    def _shown(self) -> int:
        """Return how many images the messages hold."""
        return sum(block["type"] == "image" for message in self._messages for block in message["content"])

    def _relative(self, box: Sequence[float]) -> list[float]:
        """Return a box in pixels of the last image as a box in [0, 1].

        Raises:
            ValueError: there is no image, or the box is none or lies outside.
        """
        if not self.pictures:
            raise ValueError("A box needs an image.")
        width, height = self.pictures[-1].size
        x1, y1, x2, y2 = (float(value) for value in box) if len(box) == 4 else (0.0,) * 4
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise ValueError(
                f"A box must be x1, y1, x2, y2 in pixels, with x1 < x2 <= {width} and y1 < y2 <= {height}, got "
                f"{list(box)}."
            )
        return [x1 / width, y1 / height, x2 / width, y2 / height]

    @staticmethod
    def _with_images(messages: Sequence[Message], name: str, images: Sequence[Any]) -> list[Message]:
        """Return messages with something in place of each image, under a name in its block."""
        rest = iter(images)
        return [
            {
                "role": message["role"],
                "content": [
                    {"type": "image", name: next(rest)} if block["type"] == "image" else dict(block)
                    for block in message["content"]
                ],
            }
            for message in messages
        ]


def _to_base64(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
