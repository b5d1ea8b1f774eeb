"""File of a model card: our sections between markers, which are refreshed, and a person's text, which stays.

A card without our marker was written by a person and is never changed. In a card of ours, a section that we wrote is
replaced between its markers; text outside of them stays. Of the metadata, a digest of each value that we wrote stands
in a marker, so that a value that a person has changed, added or removed stays so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

_METADATA = re.compile(r"<!-- lyrics:metadata(?P<digests>( [\w-]+=[0-9a-f]{8})*) -->\n?")
_SECTION = re.compile(r"<!-- lyrics:(?P<name>[\w-]+) -->\n(?P<text>.*?)<!-- /lyrics:(?P=name) -->\n?", re.DOTALL)
_TITLE = re.compile(r"\A(?:---\r?\n.*?\r?\n---\r?\n)?", re.DOTALL)

_UNFILLED, _MANY = "[More Information Needed]", 30  # in the template of `huggingface_hub`: 39 times

# In the order in which they stand in a new card.
SECTIONS = (
    "title",
    "quick-start",
    "seeing",
    "training",
    "losses",
    "evaluation",
    "limits",
    "licence",
    "citation",
    "versions",
)


def is_ours(card: str) -> bool:
    """Return whether a card was written by this package, and not by a person or another library."""
    return _METADATA.search(card) is not None


def is_by_hand(card: str) -> bool:
    """Return whether a person wrote a card: it is not ours, and not the template that PEFT saves, left unfilled."""
    return not is_ours(card) and card.count(_UNFILLED) < _MANY


def read_metadata(card: str) -> dict[str, Any]:
    """Return the metadata of a card, an empty dictionary where they are missing or damaged.

    Args:
        card: text of a `README.md`.
    """
    try:
        return ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # noqa: BLE001  (a card of anybody; YAML's errors are of many classes)
        return {}


def read_results(card: str) -> tuple[str | None, list[EvalResult]]:
    """Return the model's name and the results in the metadata of a card; none where they are missing or damaged.

    Args:
        card: text of a `README.md`.
    """
    index = read_metadata(card).get("model-index")
    try:
        return model_index_to_eval_results(index) if index else (None, [])
    except (KeyError, TypeError, ValueError, IndexError):
        return None, []


def refresh_card(old: str | None, metadata: Mapping[str, Any], sections: Mapping[str, str], keep: bool = False) -> str:
    """Return the text of a card with new metadata and sections. What a person wrote in the old one stays.

    Args:
        old: text of the present card, which must be ours, or `None` for a new card.
        metadata: mapping of metadata, as `ModelCardData.to_dict` returns it.
        sections: mapping of names of `SECTIONS` to Markdown; an empty text removes a section.
        keep: whether metadata and sections of ours in `old` stay where there is no new one, because they are still
            true; else they are removed.
    """
    own = {name: _digest(value) for name, value in metadata.items()}
    if old is None:
        merged, body = dict(metadata), ""
    else:
        sections = sections if keep else dict.fromkeys(SECTIONS, "") | dict(sections)
        merged, own = _merge_metadata(old, metadata, own, keep)
        body = _METADATA.sub("", _body_of(old), count=1).lstrip("\n")
    digests = "".join(f" {name}={own[name]}" for name in sorted(own))
    front = ModelCardData(**merged).to_yaml()
    text = f"---\n{front}\n---\n\n<!-- lyrics:metadata{digests} -->\n"
    return text + _refresh_sections(body, sections)


def merge_cards(present: str, new: str) -> str:
    """Return what becomes of a card where another one is to be put in its place.

    Args:
        present: text of the present card. If a person wrote it, it stays; in one of ours, a person's changes stay.
        new: text of the new card. One that a person wrote takes the place of any other.
    """
    if not is_ours(new):
        return new
    if is_by_hand(present):
        return present
    if not is_ours(present):
        return new
    sections = {found["name"]: found["text"] for found in _SECTION.finditer(new)}
    return refresh_card(present, read_metadata(new), sections)


def _body_of(card: str) -> str:
    """Return a card without its metadata."""
    return card[_end_of_metadata(card) :]


def _end_of_metadata(card: str) -> int:
    found = _TITLE.match(card)
    return found.end() if found else 0


def _merge_metadata(
    old: str, metadata: Mapping[str, Any], own: dict[str, str], keep: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the metadata of the new card, and the digests of the values in it that are ours."""
    found = _METADATA.search(old)
    written = dict(pair.split("=") for pair in found["digests"].split()) if found else {}
    present = read_metadata(old)
    merged, digests = {}, {}
    for name in [*metadata, *(name for name in present if name not in metadata)]:
        is_ours = name in written and name in present and _digest(present[name]) == written[name]
        untouched = is_ours or (name not in written and name not in present)
        if untouched and name in metadata:
            merged[name], digests[name] = metadata[name], own[name]
        elif name in present and (keep or not untouched):
            merged[name] = present[name]
            if name in written:
                digests[name] = written[name]
        elif name not in present and name in written:  # removed by a person
            digests[name] = written[name]
    return merged, digests


def _digest(value: Any) -> str:
    """Return a digest of a value of the metadata."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _refresh_sections(body: str, sections: Mapping[str, str]) -> str:
    """Replace the sections in a body, and add those that it lacks behind the one that comes before them."""
    ends: dict[str, int] = {}
    text, last = "", 0
    for found in _SECTION.finditer(body):
        name = found["name"]
        text += body[last : found.start()]
        text += _mark(name, sections[name]) if name in sections else found[0]
        ends[name], last = len(text), found.end()
    text += body[last:]
    for name in SECTIONS:
        if name in ends or not sections.get(name):
            continue
        before = [ends[one] for one in SECTIONS[: SECTIONS.index(name)] if one in ends]
        place = max(before, default=0)
        added = "\n" * bool(place) + _mark(name, sections[name])
        text = text[:place] + added + text[place:]
        ends = {one: end + len(added) * (end > place) for one, end in ends.items()}
        ends[name] = place + len(added)
    return text.rstrip("\n") + "\n"


def _mark(name: str, text: str) -> str:
    """Return a section between its markers; nothing for an empty one."""
    return f"<!-- lyrics:{name} -->\n{text.strip()}\n<!-- /lyrics:{name} -->\n" if text.strip() else ""
