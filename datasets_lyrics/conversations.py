"""Rows of instruction data, in TRL's forms or LLaVA's, read into one form: messages of blocks with images beside them.

A block is text, an image (`{"type": "image"}`), or a box (`{"type": "box", "box": [x1, y1, x2, y2]}`, with `label`
and the number of its image, `image`, where it has them). In LLaVA's form, and in rows with `boxes`, the marks `<image>`
and `<box>` in plain text stand for the next image of `images` and the next box of `boxes`. In other rows whose images
have no block, `<image>` in the user's text is a place if there are as many as images, as other trainers write rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.utils import logging

from .path_guard import AS_GIVEN, IMAGE_BLOCKS, IMAGE_KEYS

IMAGE, BOX = "<image>", "<box>"
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
_MARKS = re.compile(f"({IMAGE}|{BOX})")
_IMAGE_MARKS = re.compile(f"({IMAGE})")

logger = logging.get_logger(__name__)

Message = dict[str, Any]


@dataclass
class Conversation:
    """A conversation in the one form.

    Attributes:
        messages: list of messages with `role` and `content`, a list of blocks; image blocks hold no image.
        pictures: list of paths, bytes or PIL images, in the order of their blocks.
        learned_from: int, number of the first message whose answer is learned.
    """

    messages: list[Message]
    pictures: list[Any] = field(default_factory=list)
    learned_from: int = 0


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """Read the conversation of a row.

    Args:
        row: mapping with `messages`, with `prompt` and `completion` (messages or plain text), or with LLaVA's
            `conversations`. Its images are in `images` or `image`, in the order of their places, or in the blocks of
            its messages, as `image`, `path`, `url`, `image_url` or `base64`. Its boxes are in blocks, or in `boxes`.

    Raises:
        ValueError: saying what is wrong with the row, such as a URL that was not asked for.
    """
    messages, learned_from = _read_blocks(row)
    pictures = _join_pictures(messages, _images_of(row))
    _fill_boxes(messages, iter(_as_list(row.get("boxes"))))
    if not any(message["role"] == "assistant" for message in messages[learned_from:]):
        raise ValueError("The row has no answer to be learned.")
    _check_system(messages)
    return Conversation(messages, AS_GIVEN.check_image(pictures), learned_from)


def read_question(row: Mapping[str, Any]) -> Conversation:
    """Read a row that asks: its last message is the user's.

    Args:
        row: mapping as in `read_prompt`.

    Raises:
        ValueError: saying what is wrong with the row, such as a URL that was not asked for.
    """
    conversation = read_prompt(row)
    if conversation.learned_from < len(conversation.messages):
        raise ValueError("The last message is one of the assistant, and must be a question of the user.")
    return conversation


def read_prompt(row: Mapping[str, Any]) -> Conversation:
    """Read a row that ends with a question, or with an answer, which is then the message `learned_from`.

    Args:
        row: mapping with `question` or `prompt` (text, or messages), or with the columns of `read_conversation`. Images
            and boxes are where `read_conversation` finds them.

    Raises:
        ValueError: saying what is wrong with the row, such as a URL that was not asked for.
    """
    messages, _ = _read_blocks(_ask_in_messages(row))
    pictures = _join_pictures(messages, _images_of(row))
    _fill_boxes(messages, iter(_as_list(row.get("boxes"))))
    _check_system(messages)
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    last = asked[-1] if asked else messages[-1]
    if last["role"] != "user":
        raise ValueError(f"The last message is one of the {last['role']}, and must be a question of the user.")
    if not any(map(_says_something, last["content"])):
        raise ValueError("The question is empty.")
    return Conversation(messages, AS_GIVEN.check_image(pictures), len(asked))


def read_preference_prompt(row: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Read the prompt of a preference, whose answers are beside it.

    Args:
        row: mapping with `prompt`, text or messages. Images are in `images` or `image`, or in the blocks of the prompt.

    Returns:
        The prompt, and its images as paths, bytes or PIL images. A prompt of messages has a block for each image.

    Raises:
        ValueError: saying what is wrong with the row, such as a URL that was not asked for.
    """
    prompt, pictures = row["prompt"], _images_of(row)
    if not isinstance(prompt, str):
        messages = place_images([to_blocks(message) for message in prompt], len(pictures))
        pictures = _join_pictures(messages, pictures)
        prompt = messages if pictures else prompt
    return prompt, AS_GIVEN.check_image(pictures)


def _ask_in_messages(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row with its `question`, or its `prompt` without a completion, as `messages`."""
    given: Any = row
    if not isinstance(given, Mapping) or row.get("messages"):
        return row
    asked = row.get("question")
    if asked is None and row.get("completion") is None:
        asked = row.get("prompt")
    if asked is None:
        return row
    return {**row, "messages": [{"role": "user", "content": asked}] if isinstance(asked, str) else asked}


def _join_pictures(messages: list[Message], given: list[Any]) -> list[Any]:
    """Return the images of a row, and put blocks for those without a place into the first message of the user."""
    places = [block for message in messages for block in message["content"] if block["type"] == "image"]
    in_blocks = [block.pop("image") for block in places if "image" in block]
    pictures = given or in_blocks
    if not places and pictures:  # as TRL does: images without a place come first
        first = next((message for message in messages if message["role"] == "user"), None)
        if first is None:
            raise ValueError(f"The row has {len(pictures)} images and no message of a user to hold them.")
        first["content"] = [{"type": "image"} for _ in pictures] + first["content"]
    elif len(places) != len(pictures):
        raise ValueError(f"The row has {len(places)} places for images, but {len(pictures)} images.")
    return pictures


def _check_system(messages: Sequence[Message]) -> None:
    """Raise a `ValueError` where a message of the system follows others."""
    if any(message["role"] == "system" for message in messages[1:]):
        raise ValueError("A message of the system stands after others; it must be the first.")


def empty_answers(conversation: Conversation) -> list[int]:
    """Return the numbers of the messages whose answer is learned, and says nothing."""
    learned = list(enumerate(conversation.messages))[conversation.learned_from :]
    answers = [(number, message["content"]) for number, message in learned if message["role"] == "assistant"]
    return [number for number, blocks in answers if not any(map(_says_something, blocks))]


def _says_something(block: Message) -> bool:
    return block["type"] == "box" or bool(block.get("text", "").strip())


def box_blocks(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield every block that is a box."""
    return (block for message in messages for block in message["content"] if block["type"] == "box")


def outline(row: Mapping[str, Any]) -> tuple[list[str], int, int]:
    """Return the texts of a row and the numbers of its images and boxes, without reading an image.

    Raises:
        ValueError: when the row has no conversation.
    """
    texts, places, boxes = [], 0, 0
    for message in _read_blocks(row)[0]:
        for block in message["content"]:
            places += block["type"] == "image"
            boxes += block["type"] == "box"
            texts += [block["text"]] if block["type"] == "text" else []
    return texts, max(places, len(_images_of(row))), boxes


def place_images(messages: Sequence[Message], count: int) -> list[Message]:
    """Turn `<image>` in the user's text into image blocks, in rows whose images have no block.

    Args:
        messages: messages of blocks.
        count: number of the row's images. With another number of marks, a warning is logged once, and all stay text.
    """
    texts = [block["text"] for block in _blocks_of_user(messages) if block["type"] == "text"]
    marks = sum(text.count(IMAGE) for text in texts)
    if not marks or not count or any(block["type"] == "image" for block in _blocks_of_user(messages)):
        return list(messages)
    if marks != count:
        logger.warning_once(
            f"A row has {count} images and {marks} {IMAGE} in the text of its messages: they are read as words, and "
            f"images come first. Write one {IMAGE} for each image, or image blocks."
        )
        return list(messages)
    return [
        message if message["role"] != "user" else {**message, "content": list(_split_blocks(message["content"]))}
        for message in messages
    ]


def _blocks_of_user(messages: Sequence[Message]) -> Iterator[Message]:
    return (block for message in messages if message["role"] == "user" for block in message["content"])


def _split_blocks(blocks: Sequence[Message]) -> Iterator[Message]:
    for block in blocks:
        yield from _split_at_marks(block["text"], _IMAGE_MARKS) if block["type"] == "text" else (block,)


def _read_blocks(row: Mapping[str, Any]) -> tuple[list[Message], int]:
    """Return the messages of a row as blocks, and the number of the first one whose answer is learned."""
    messages, learned_from = _read_messages(row)
    blocks = [to_blocks(message, marks=_holds_marks(row, message)) for message in messages]
    return place_images(blocks, len(_images_of(row))), learned_from


def _read_messages(row: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """Return the messages of a row, and the number of the first one whose answer is learned."""
    given: Any = row
    if not isinstance(given, Mapping):
        raise ValueError(f"A row must be a mapping, such as a dictionary, got {given!r:.100}.")
    if row.get("messages"):
        return _check_messages("messages", row["messages"]), 0
    if row.get("conversations"):
        return [_from_llava(message) for message in _check_messages("conversations", row["conversations"])], 0
    if row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
        prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        completion = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        prompt, completion = _check_messages("prompt", prompt), _check_messages("completion", completion)
        return [*prompt, *completion], len(prompt)
    for name in ("messages", "conversations"):
        if row.get(name) is not None:
            raise ValueError(f"The row has no conversation: {name!r} is empty.")
    raise ValueError(
        "The row has no conversation: it needs 'messages', 'prompt' and 'completion', or 'conversations', and has "
        f"{', '.join(map(repr, row))}."
    )


def _check_messages(name: str, messages: Any) -> list[Mapping[str, Any]]:
    """Return the messages of a column as a list; raise a `ValueError` for anything else."""
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f"{name!r} must be a list of messages with role and content, got {messages!r:.100}.")
    return list(messages)


def _from_llava(message: Mapping[str, Any]) -> Message:
    if "from" not in message:
        return dict(message)
    if not isinstance(message["from"], str) or message["from"] not in ROLES:
        raise ValueError(f"A message is from {message['from']!r}; known are {', '.join(ROLES)}.")
    return {"role": ROLES[message["from"]], "content": message.get("value") or ""}


def _holds_marks(row: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Return whether marks in a message's text are places: in LLaVA's form, and in rows with `boxes`."""
    return isinstance(message.get("content"), str) and bool(row.get("conversations") or row.get("boxes"))


def to_blocks(message: Mapping[str, Any], marks: bool = False) -> Message:
    """Return a message whose content is blocks, without the keys that Arrow has filled with `None`.

    Args:
        message: mapping with `role`, and `content` as text or blocks.
        marks: bool, whether `<image>` and `<box>` in a text are places.

    Raises:
        ValueError: saying what is wrong with the message.
    """
    role = message.get("role")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"A message has the role {role!r}; known are system, user and assistant.")
    content = message.get("content")
    if isinstance(content, str):
        content = list(_split_at_marks(content)) if marks else [{"type": "text", "text": content}] * bool(content)
    content = content or []
    if not isinstance(content, list | tuple) or not all(isinstance(block, Mapping) for block in content):
        raise ValueError(f"A message of the {role} must hold text or a list of blocks, got {content!r:.100}.")
    blocks = [{name: value for name, value in block.items() if value is not None} for block in content]
    for block in blocks:
        kind = block.get("type")
        if kind in IMAGE_BLOCKS:
            _move_image(block)
            if role != "user":
                raise ValueError(f"A message of the {role} holds an image; only those of the user do.")
        elif kind not in ("text", "box") or (kind == "text" and not isinstance(block.get("text"), str)):
            raise ValueError(f"A message of the {role} has a block that is no text, image or box: {block!r:.100}.")
    return {"role": role, "content": blocks}


def _move_image(block: Message) -> None:
    """Give an image block the one form: its image, if it holds one, in `image`."""
    held = [block.pop(name) for name in IMAGE_KEYS if name in block]
    held += [f"data:;base64,{text}" for text in (block.pop("base64", None),) if text]
    block["type"] = "image"
    if held:
        image = held[0]
        block["image"] = image["url"] if isinstance(image, Mapping) and "url" in image else image


def _split_at_marks(text: str, marks: re.Pattern[str] = _MARKS) -> Iterator[Message]:
    """Yield blocks, without the line breaks around an image, which LLaVA has and the chat template writes itself."""
    parts = marks.split(text)  # marks are at odd places
    for place, part in enumerate(parts):
        if place % 2:
            yield {"type": part[1:-1]}
            continue
        part = part.lstrip("\n") if parts[place - 1 : place] == [IMAGE] else part
        part = part.rstrip("\n") if parts[place + 1 : place + 2] == [IMAGE] else part
        if part:
            yield {"type": "text", "text": part}


def _images_of(row: Mapping[str, Any]) -> list[Any]:
    given = row.get("images")  # None where another row of the file has this column
    return _as_list(row.get("image") if given is None else given)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _fill_boxes(messages: list[Message], boxes: Iterator[Any]) -> None:
    """Give the boxes of the row to the blocks that have none, in order."""
    for block in box_blocks(messages):
        if block.get("box") is None:
            given = next(boxes, None)
            if given is None:
                raise ValueError(f"The row has more {BOX} than boxes.")
            block |= dict(given) if isinstance(given, Mapping) else {"box": given}
        box = block.get("box")
        if isinstance(box, str | Mapping) or not hasattr(box, "__len__"):
            raise ValueError(f"A box must be [x1, y1, x2, y2], alone or as `box` of a mapping, got {box!r:.100}.")
    if left := len(list(boxes)):
        raise ValueError(f"The row has {left} boxes more than {BOX}.")
