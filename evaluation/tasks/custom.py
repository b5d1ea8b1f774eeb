"""Questions of one's own: rows of a JSON Lines file (or a JSON list) with answers or boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...datasets_lyrics.catalog.boxes import from_xyxy, normalize
from ...datasets_lyrics.catalog.dialogue import list_or_lines
from ...datasets_lyrics.catalog.folder import Folder, Split
from ...datasets_lyrics.catalog.formats import Format, Region, Row, field_of, text_of, texts_of
from ...datasets_lyrics.catalog.omissions import OmittedError


def _rows(folder: Folder, record: Mapping[str, Any]) -> Iterable[Row]:
    """Return the row of a record: `image` or `images`, `question`, and `answer`, `answers` or `box`."""
    question = text_of(record, "question")
    images = record.get("images", record.get("image"))
    names = [images] if isinstance(images, str) else list(images or [])
    if not all(isinstance(name, str) for name in names):
        raise OmittedError("malformed record", f"'images' is no list of paths but {images!r:.60}")
    pictures = [folder.picture(name) for name in names]
    groups = record.get("groups") or {}
    if not isinstance(groups, Mapping):
        raise OmittedError("malformed record", f"'groups' is no object but {groups!r:.60}")
    common: dict[str, Any] = {"groups": {str(name): str(value) for name, value in groups.items()}}
    key = str(record.get("id", ""))
    if "box" in record:
        yield Row(key, pictures, "locate", regions=[Region(question, _box(folder, record, pictures))], **common)
        return
    answers = texts_of(field_of(record, "answers", "answer"), "answers")
    if "choices" not in record:
        yield Row(key, pictures, "vqa", question, answers, **common)
        return
    choices = texts_of(record["choices"], "choices")
    if answers[0] not in choices:
        raise OmittedError("no right choice", f"{answers[0]!r:.40} is none of the choices")
    yield Row(key, pictures, "choice", question, answers[:1], choices, **common)


def _box(folder: Folder, record: Mapping[str, Any], pictures: list[str]) -> list[float]:
    units = record.get("box_units", "relative")
    if units == "relative":
        try:
            box = [float(value) for value in record["box"]]
        except (TypeError, ValueError):
            raise OmittedError("bad box", f"{record['box']!r:.80} is no list of numbers") from None
        if len(box) != 4 or not all(0 <= value <= 1 for value in box):
            raise OmittedError("bad box", f"{record['box']!r:.80} is not xyxy in [0, 1] (or set box_units: pixel)")
        return normalize(box)
    if units != "pixel" or not pictures:
        raise OmittedError("bad box", f"box_units is {units!r:.40}, and there are {len(pictures)} images")
    return from_xyxy(record["box"], folder.size(pictures[-1]))


CUSTOM = Format(
    "custom",
    "Your own questions",
    "your own",
    "yours",
    "a .jsonl file of rows with image, question, and answer, answers or box",
    "as `image` says, relative to the file",
    {"all": Split(("*.jsonl",))},
    list_or_lines,
    _rows,
    unit="records",
)
