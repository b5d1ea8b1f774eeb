"""Check of rows in their own form: each is read as training reads it, and faults are counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .catalog.checking import measure_picture
from .catalog.omissions import Omissions, OmittedError
from .conversations import (
    Conversation,
    empty_answers,
    read_conversation,
    read_preference_prompt,
    read_prompt,
    to_blocks,
)
from .expected_answers import EXPECTED, check_expected
from .path_guard import AS_GIVEN
from .row_boxes import in_order, read_boxes

CONVERSATION_COLUMNS = ("messages", "conversations", "prompt", "completion")
PREFERENCE_COLUMNS = ("chosen", "rejected")


@dataclass
class RowsCheck:
    """What a check of rows found.

    Attributes:
        rows: int, number of rows.
        kinds: number of rows of each kind: conversations for the second stage, preferences for DPO, prompts for GRPO,
            and captions for the first stage.
        pictures: int, number of images that were decoded; a file that appears again counts once.
        boxes: int, number of boxes in usable rows.
        faults: faults of rows, by kind.
    """

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    boxes: int = 0
    faults: Omissions = field(default_factory=Omissions)

    def as_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        numbers = {name: getattr(self, name) for name in ("rows", "pictures", "boxes")} | {"kinds": dict(self.kinds)}
        return numbers | {"faults": dict(self.faults.counts), "examples": dict(self.faults.examples)}


def check_rows(
    rows: Any,
    image_column: str = "image",
    caption_column: str = "caption",
    box_units: str = "relative",
    progress: Callable[[], object] = lambda: None,
) -> RowsCheck:
    """Read every row as training reads it, and decode its images.

    A row with one of `PREFERENCE_COLUMNS`, and without messages, is a preference. A row with a column of `EXPECTED` is
    a prompt for rewards, one with a column of `CONVERSATION_COLUMNS` a conversation, and any other an image with
    captions.

    Args:
        rows: sequence of rows, or shards of them, as `open_rows` returns them.
        image_column, caption_column: columns of captions' rows.
        box_units: units of boxes in rows that do not state their own, `"relative"` or `"pixel"`.
        progress: function, called for every row.

    Raises:
        ValueError: naming the file and the line that cannot be read.
    """
    found, pictures = RowsCheck(), _Pictures()
    for place, row in _each(rows):
        progress()
        found.rows += 1
        try:
            if isinstance(row, Exception):
                raise row
            kind = _kind_of(row)
            found.kinds[kind] += 1
            if kind == "captions":
                _check_caption(row, pictures, image_column, caption_column)
            elif kind == "preferences":
                _check_preference(row, pictures)
            else:
                check = _check_prompt if kind == "prompts" else _check_conversation
                found.boxes += check(row, pictures, row.get("box_units") or box_units)
        except OmittedError as error:
            found.faults.add(f"row {place}", error)
        except ValueError as error:
            found.faults.add(f"row {place}", OmittedError("unusable row", str(error)))
    found.pictures = pictures.count
    return found


def _kind_of(row: Mapping[str, Any]) -> str:
    def has(names: Iterable[str]) -> bool:
        return any(row.get(name) is not None for name in names)

    if has(PREFERENCE_COLUMNS) and not has(("messages", "conversations")):
        return "preferences"
    if has(EXPECTED):
        return "prompts"
    return "conversations" if has(CONVERSATION_COLUMNS) else "captions"


def _each(rows: Any) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
    """Yield place and row, or place and error; places count from 0, as in messages of training."""
    if hasattr(rows, "read"):
        for shard in range(len(rows.names)):
            yield from rows.read(shard, 0)
        return
    for number in range(len(rows)):
        try:
            row = rows[number]
        except ValueError as error:  # a path that may not be read
            row = error
        yield str(number), row


class _Pictures:
    """Decoder of images, which remembers the sizes of files that appear again."""

    def __init__(self) -> None:
        self.count, self._sizes = 0, dict[str, tuple[int, int]]()

    def sizes(self, values: Iterable[Any]) -> list[tuple[int, int]]:
        """Return width and height of each image; raise an `OmittedError` for one that training cannot use."""
        return [self._size(value) for value in values]

    def _size(self, value: Any) -> tuple[int, int]:
        key = str(value) if isinstance(value, str | Path) else None
        if key is not None and key in self._sizes:
            return self._sizes[key]
        size = measure_picture(value)
        self.count += 1
        if key is not None:
            self._sizes[key] = size
        return size


def _check_conversation(row: Mapping[str, Any], pictures: _Pictures, box_units: str) -> int:
    """Return the number of boxes of a conversation, or raise what is wrong with it."""
    conversation = read_conversation(row)
    count = _check_boxes(conversation, pictures.sizes(conversation.pictures), box_units)
    for number in empty_answers(conversation):
        raise OmittedError("empty answer", f"message {number} teaches the model to end its answers at once")
    return count


def _check_prompt(row: Mapping[str, Any], pictures: _Pictures, box_units: str) -> int:
    """Return the number of boxes of a prompt and of the answer that is expected, or raise what is wrong with them."""
    conversation = read_prompt(row)
    sizes = pictures.sizes(conversation.pictures)
    expected = check_expected(row, sizes[0] if box_units == "pixel" and sizes else (1, 1))
    boxes = expected["expected_boxes"] or []
    _check_corners(boxes)
    return _check_boxes(conversation, sizes, box_units) + len(boxes)


def _check_boxes(conversation: Conversation, sizes: Sequence[tuple[int, int]], box_units: str) -> int:
    """Return the number of boxes in the messages, or raise what is wrong with one."""
    boxes = [box for _, box in read_boxes(conversation, sizes, box_units)]
    _check_corners(boxes)
    return len(boxes)


def _check_corners(boxes: Iterable[list[float]]) -> None:
    for box in boxes:
        if box != in_order(box):
            raise OmittedError("corners not in order", f"{box} in [0, 1]; are these x, y, width and height?")


def _check_preference(row: Mapping[str, Any], pictures: _Pictures) -> None:
    """Raise what is wrong with a prompt and its two answers, all of them texts or lists of messages."""
    columns = ("prompt", *PREFERENCE_COLUMNS)
    missing = [name for name in columns if row.get(name) is None]
    if missing:
        raise OmittedError(f"no {missing[0]}", f"a preference needs prompt, chosen and rejected; it has {list(row)}")
    forms = [isinstance(row[name], str) for name in columns]
    if len(set(forms)) > 1:
        raise ValueError("prompt, chosen and rejected must all be text, or all be lists of messages.")
    for name in columns:
        if not _says_something(name, row[name]):
            raise OmittedError(f"empty {name}", f"{row[name]!r:.80}")
    if row["chosen"] == row["rejected"]:
        raise OmittedError("equal answers", f"chosen and rejected are {row['chosen']!r:.80}: nothing can be learned")
    pictures.sizes(read_preference_prompt(row)[1])


def _says_something(name: str, given: Any) -> bool:
    """Return whether a text, or the last of some messages, has words; raise what is wrong with the messages."""
    if isinstance(given, str):
        return bool(given.strip())
    if not isinstance(given, list | tuple) or not all(isinstance(message, Mapping) for message in given):
        raise ValueError(f"{name!r} must be text or a list of messages with role and content, got {given!r:.100}.")
    messages = [to_blocks(message) for message in given]
    last = messages[-1]["content"] if messages else []
    return any(block["type"] != "text" or block["text"].strip() for block in last)


def _check_caption(row: Mapping[str, Any], pictures: _Pictures, image_column: str, caption_column: str) -> None:
    for column in (image_column, caption_column):
        if row.get(column) is None:
            columns = ", ".join(map(repr, row))
            raise OmittedError(f"no {column}", f"neither a conversation nor a captioned image; columns are {columns}")
    captions = row[caption_column]
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, Sequence) or not captions or not all(isinstance(one, str) for one in captions):
        raise OmittedError("no caption", f"{caption_column!r} holds {row[caption_column]!r:.60}")
    if not all(one.strip() for one in captions):
        raise OmittedError("empty caption", f"{caption_column!r} holds {captions!r:.60}")
    pictures.sizes([AS_GIVEN.check_image(row[image_column])])
