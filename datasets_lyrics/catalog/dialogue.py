"""Dialogue: LLaVA-Instruct-150K and its relatives, the mix665k form, and ShareGPT's rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from .boxes import from_padded_square
from .folder import Folder, Split, coco_names
from .formats import Format, Record, Row, field_of
from .json_stream import stream_elements, stream_lines
from .omissions import OmittedError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
IMAGE = "<image>"

_NUMBER = r"[01](?:\.\d{1,6})?"
_BOX_TEXT = re.compile(rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_STARTS = ("", "images/", "data/", "train2014/", "train2017/", "coco/train2014/", "coco/train2017/")

Turn = tuple[str, str]  # role and text


def conversation_of(record: dict[str, Any]) -> list[Turn]:
    """Return the roles and texts of a record with `conversations`, in LLaVA's form, or `messages`, in OpenAI's.

    Raises:
        OmittedError: when it is no conversation in which user and assistant take turns.
    """
    turns: list[Turn] = []
    given = field_of(record, "conversations", "messages")
    if not isinstance(given, list) or not given:
        raise OmittedError("no conversation", f"{given!r:.60}")
    for one in given:
        role, text = field_of(one, "from", "role"), field_of(one, "value", "content")
        if role not in ROLES or not isinstance(text, str):
            raise OmittedError("malformed record", f"a message is {one!r:.80}")
        turns.append((ROLES[role], text.strip()))
    spoken = [role for role, _ in turns if role != "system"]
    if spoken != ["user", "assistant"] * (len(spoken) // 2) or not spoken:
        raise OmittedError("no turns", f"the speakers are {', '.join(spoken[:6])}")
    if any(role == "system" for role, _ in turns[1:]):
        raise OmittedError("no turns", "a message of the system stands after others")
    if any(not text for role, text in turns if role == "assistant"):
        raise OmittedError("empty text", "an answer is empty")
    return turns


def blocks_of(text: str) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a text in which `<image>` marks the places of images."""
    for number, part in enumerate(text.split(IMAGE)):
        if number:
            yield {"type": "image"}
        if part := part.strip("\n"):
            yield {"type": "text", "text": part}


def _with_boxes(blocks: Iterable[dict[str, Any]], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Turn the boxes in texts, of the square-padded image, into blocks with boxes of the image itself."""
    for block in blocks:
        if block["type"] != "text":
            yield block
            continue
        end = 0
        for match in _BOX_TEXT.finditer(block["text"]):
            if before := block["text"][end : match.start()]:
                yield {"type": "text", "text": before}
            yield {"type": "box", "box": from_padded_square(match.groups(), size)}
            end = match.end()
        if rest := block["text"][end:]:
            yield {"type": "text", "text": rest}


def dialogue_rows(folder: Folder, record: dict[str, Any], padded_boxes: bool = False) -> Iterable[Row]:
    """Return the row of a conversation.

    Args:
        folder: folder of the images.
        record: mapping with `conversations` or `messages`, and `image` or `images`, if it has images.
        padded_boxes: bool, whether boxes in the texts are those of the square-padded image.
    """
    turns = conversation_of(record)
    given = record.get("images") or record.get("image") or []
    names = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise OmittedError("malformed record", f"an image is no path: {names!r:.60}")
    images = [folder.picture([name, *_coco_names_of(name)], _STARTS) for name in names]
    messages = [{"role": role, "content": list(blocks_of(text))} for role, text in turns]
    places = sum(block["type"] == "image" for message in messages for block in message["content"])
    if places and places != len(images):
        raise OmittedError("other number of images", f"{places} {IMAGE} and {len(images)} images")
    if images and not places:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "image"} for _ in images] + first["content"]
    if padded_boxes and len(images) == 1 and any(_BOX_TEXT.search(text) for _, text in turns):
        size = folder.size(images[0])
        for message in messages:
            message["content"] = list(_with_boxes(message["content"], size))
    yield Row(str(record.get("id", "")), images, "dialogue", messages=messages)


def _coco_names_of(name: str) -> list[str]:
    """Return the other names of an image of LLaVA-Instruct-150K, which are COCO's without a folder."""
    stem = name.rpartition("/")[2].rpartition(".")[0].removeprefix("COCO_train2014_")
    return coco_names(stem) if len(stem) == 12 and stem.isdecimal() else []


def list_or_lines(folder: Folder) -> Iterator[Record]:
    """Yield the records of a file that is one list, or JSON Lines."""
    path = folder.file()
    if path.suffix == ".json":
        for number, entry in enumerate(stream_elements(path)):
            yield f"{path.name}, record {number}", entry
    else:
        for number, entry in stream_lines(path):
            yield f"{path.name}, line {number}", entry


def _llava(
    name: str, title: str, license_: str, get: str, files: dict[str, tuple[str, int | None]], **options: Any
) -> Format:
    return Format(
        name,
        title,
        "dialogue",
        license_,
        get,
        "as the field `image` says; images of COCO also in train2014/ or train2017/",
        {split: Split((file,), size) for split, (file, size) in files.items()},
        list_or_lines,
        partial(dialogue_rows, **options),
        unit="records",
    )


FORMATS = (
    _llava(
        "llava_instruct",
        "LLaVA-Instruct-150K",
        "CC BY-NC 4.0 (made with GPT-4)",
        "liuhaotian/LLaVA-Instruct-150K on the Hub; images: COCO train2014 or train2017",
        {
            "train": ("llava_instruct_150k.json", 157_712),
            "conversation": ("conversation_58k.json", 56_681),
            "detail": ("detail_23k.json", 23_240),
            "reasoning": ("complex_reasoning_77k.json", 76_643),
        },
    ),
    _llava(
        "llava_mix665k",
        "LLaVA-1.5 mixture of 665k",
        "each part its own; made with GPT-4 in part",
        "llava_v1_5_mix665k.json; images of COCO, GQA, OCR-VQA, TextVQA, Visual Genome",
        {"train": ("llava_v1_5_mix665k.json", 665_298)},
        padded_boxes=True,
    ),
    _llava(
        "llavar",
        "LLaVAR",
        "CC BY-NC 4.0 (made with GPT-4)",
        "the authors' site: llavar_instruct_16k.json, and their images",
        {"train": ("llavar_instruct_16k.json", None), "pretrain": ("chat_llavar.json", None)},
    ),
    _llava(
        "sharegpt",
        "ShareGPT's rows, with or without images",
        "that of the file",
        "any file of such rows, named sharegpt.json or sharegpt.jsonl",
        {"train": ("sharegpt.json*", None)},
    ),
)
