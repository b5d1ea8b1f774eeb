"""Rows of instruction data, in TRL's forms or LLaVA's -> one form: messages of blocks, and the pictures beside them.

A block is text, a picture (`{"type": "image"}`), or a box (`{"type": "box", "box": [x1, y1, x2, y2]}`, with `label`
and the number of its picture, `image`, where it has them). In rows of plain strings `<image>` and `<box>` stand for the
next picture of `images` and the next box of `boxes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IMAGE, BOX = "<image>", "<box>"
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
_MARKS = re.compile(f"({IMAGE}|{BOX})")

Message = dict[str, Any]


@dataclass
class Conversation:
    """A conversation in the one form.

    Attributes:
        messages: with `role` and `content`, a list of blocks; pictures are blocks without one.
        pictures: in the order of their blocks; paths, bytes, or PIL pictures.
        learned_from: the number of the first message whose answer is learned.
    """

    messages: list[Message]
    pictures: list[Any] = field(default_factory=list)
    learned_from: int = 0


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """The conversation of a row.

    Args:
        row: with `messages`, with `prompt` and `completion` (messages or plain text), or with LLaVA's
            `conversations`; and with `images` (or `image`), in the order of their places, and `boxes` for rows of
            plain strings.

    Raises:
        ValueError: saying what is wrong with the row.
    """
    messages, learned_from = _read_messages(row)
    pictures = _as_list(row.get("images", row.get("image")))
    boxes = iter(_as_list(row.get("boxes")))
    messages = [_to_blocks(message, marks=_holds_marks(row, message)) for message in messages]
    found = [block for message in messages for block in message["content"] if block["type"] == "image"]
    pictures = [*pictures] if pictures else [_take_picture(block) for block in found if "image" in block]
    if not found and pictures:  # as TRL does it: pictures without a place come first
        first = next((message for message in messages if message["role"] == "user"), None)
        if first is None:
            raise ValueError(f"The row has {len(pictures)} pictures and no message of a user to hold them.")
        first["content"] = [{"type": "image"} for _ in pictures] + first["content"]
    elif len(found) != len(pictures):
        raise ValueError(f"The row has {len(found)} places for pictures, but {len(pictures)} pictures.")
    _fill_boxes(messages, boxes)
    _check_turns(messages, learned_from)
    return Conversation(messages, pictures, learned_from)


def box_blocks(messages: Sequence[Message]) -> Iterator[Message]:
    """Every block that is a box."""
    return (block for message in messages for block in message["content"] if block["type"] == "box")


def outline(row: Mapping[str, Any]) -> tuple[list[str], int, int]:
    """What is in a row, without its pictures being there: its texts, and how many pictures and boxes go with them.

    Raises:
        ValueError: when the row has no conversation.
    """
    texts, places, boxes = [], 0, 0
    for message in _read_messages(row)[0]:
        for block in _to_blocks(message, marks=_holds_marks(row, message))["content"]:
            places += block["type"] == "image"
            boxes += block["type"] == "box"
            texts += [block["text"]] if block["type"] == "text" else []
    return texts, max(places, len(_as_list(row.get("images", row.get("image"))))), boxes


def _read_messages(row: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    if row.get("messages"):
        return list(row["messages"]), 0
    if row.get("conversations"):
        return [_from_llava(message) for message in row["conversations"]], 0
    if row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
        prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        completion = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        return [*prompt, *completion], len(prompt)
    raise ValueError(
        "The row has no conversation: it needs 'messages', 'prompt' and 'completion', or 'conversations', and has "
        f"{', '.join(map(repr, row))}."
    )


def _from_llava(message: Mapping[str, Any]) -> Message:
    if "from" not in message:
        return dict(message)
    if message["from"] not in ROLES:
        raise ValueError(f"A message is from {message['from']!r}; known are {', '.join(ROLES)}.")
    return {"role": ROLES[message["from"]], "content": message.get("value") or ""}


def _holds_marks(row: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether marks in a message's text are places: in LLaVA's form, and where the row says what goes there."""
    return isinstance(message.get("content"), str) and bool(row.get("conversations") or row.get("boxes"))


def _to_blocks(message: Mapping[str, Any], marks: bool) -> Message:
    """A message with content as blocks. Keys that Arrow has added with nothing in them are taken off."""
    role = message.get("role")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"A message has the role {role!r}; known are system, user and assistant.")
    content = message.get("content")
    if isinstance(content, str):
        parts = _MARKS.split(content) if marks else [content]
        content = [{"type": part[1:-1]} if part in (IMAGE, BOX) and marks else _text(part) for part in parts if part]
        _trim(content)
    blocks = [{name: value for name, value in block.items() if value is not None} for block in content or []]
    for block in blocks:
        kind = block.get("type")
        if kind not in ("text", "image", "box") or (kind == "text" and not isinstance(block.get("text"), str)):
            raise ValueError(f"A message of the {role} has a block that is no text, picture or box: {block!r:.100}.")
        if kind == "image" and role != "user":
            raise ValueError(f"A message of the {role} holds a picture; only those of the user do.")
    return {"role": role, "content": blocks}


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _trim(blocks: list[Message]) -> None:
    """Take off the line breaks that LLaVA's data have around a picture; the chat template writes its own."""
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            if index and blocks[index - 1]["type"] == "image":
                block["text"] = block["text"].lstrip("\n")
            if index + 1 < len(blocks) and blocks[index + 1]["type"] == "image":
                block["text"] = block["text"].rstrip("\n")
    blocks[:] = [block for block in blocks if block.get("text") != ""]


def _take_picture(block: Message) -> Any:
    return block.pop("image")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _fill_boxes(messages: list[Message], boxes: Iterator[Any]) -> None:
    """Give the boxes of the row to the blocks that have none, in order."""
    for block in box_blocks(messages):
        if "box" not in block:
            given = next(boxes, None)
            if given is None:
                raise ValueError(f"The row has more {BOX} than boxes.")
            block |= dict(given) if isinstance(given, Mapping) else {"box": list(given)}
    if left := len(list(boxes)):
        raise ValueError(f"The row has {left} boxes more than {BOX}.")


def _check_turns(messages: list[Message], learned_from: int) -> None:
    if not any(message["role"] == "assistant" for message in messages[learned_from:]):
        raise ValueError("The row has no answer to be learned.")
    if any(message["role"] == "system" for message in messages[1:]):
        raise ValueError("A message of the system stands after others; it must be the first.")
