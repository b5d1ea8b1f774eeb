"""Records of what an output was made with: a resumed run compares its own with the saved one, and names differences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_DIGITS = 12  # of the hash of a row
_SHOWN = 24  # characters of a value in a message


def hash_row(row: Any) -> str:
    """Return a short hash of a JSON value."""
    content = json.dumps(row, sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def compare_rows(saved: Sequence[str], now: Sequence[str], name: str = "row") -> list[str]:
    """Return in words how the hashes of rows differ, as a list of one sentence or none.

    Args:
        saved, now: sequences of one hash for each row.
        name: what a row is called.
    """
    if list(saved) == list(now):
        return []
    pairs = enumerate(zip(saved, now, strict=False), 1)
    first = next((number for number, (before, after) in pairs if before != after), None)
    place = f"the first other one is {name} {first}" if first else f"{len(saved)} instead of {len(now)}"
    return [f"other {name}s ({place})"]


def compare_values(saved: Any, now: Any, title: str, name: str = "") -> list[str]:
    """Return in words how two nested dictionaries of values differ, as a list of one sentence or none.

    Args:
        saved, now: dictionaries, or values.
        title: what a difference means, such as `"another model"`.
        name: name of the value, where it is no dictionary.
    """
    before, after = _flatten(saved), _flatten(now)
    changed = [
        f"{key or name} {_short(before.get(key))} instead of {_short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return [f"{title} ({', '.join(changed)})"] if changed else []


def _flatten(value: Any, before: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by their names in a row."""
    if not isinstance(value, Mapping):
        return {before: value}
    return {
        key: one for name, inner in value.items() for key, one in _flatten(inner, f"{before} {name}".strip()).items()
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}..."
