"""Metadata of a model card: built from facts, and checked against a table of what the Hub knows.

`ModelCard.validate` would ask the Hub; this table needs no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers.utils.hub import cached_file

from .card_file import read_metadata

PUBLISHED_IDS = ("IDEA-CCNL/Ziya-Visual-Lyrics-14B",)
PUBLISHED_LICENSE = "gpl-3.0"
RELATIONS = ("adapter", "finetune", "merge", "quantized")

# Licences of language models, vision encoders and data that are common on the Hub, by the Hub's names.
LICENSES = frozenset(
    [
        "apache-2.0",
        "mit",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl-3.0",
        "agpl-3.0",
        "mpl-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "unlicense",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nc-nd-4.0",
        "openrail",
        "openrail++",
        "creativeml-openrail-m",
        "bigscience-openrail-m",
        "bigcode-openrail-m",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "gemma",
        "deepseek",
        "unknown",
        "other",
    ]
)

_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_CACHED = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)[/\\]snapshots[/\\]")
_QUIET = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}


def _texts(value: Any, allowed: Callable[[str], object] = bool) -> bool:
    """Return whether a value is a text, or a list of texts, that are allowed."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and bool(allowed(one)) for one in values)


# Every key that we write, and what its value may be.
TABLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "library_name": (lambda value: value == "transformers", "'transformers'"),
    "pipeline_tag": (lambda value: value == "image-text-to-text", "'image-text-to-text'"),
    "license": (lambda value: value in LICENSES, f"one of {', '.join(sorted(LICENSES))}"),
    "license_name": (lambda value: _texts(value, re.compile(r"[a-z0-9.-]+").fullmatch), "lower case, without spaces"),
    "base_model": (lambda value: _texts(value, is_hub_id), "a Hub id, or a list of them"),
    "base_model_relation": (lambda value: value in RELATIONS, f"one of {', '.join(RELATIONS)}"),
    "datasets": (lambda value: _texts(value, is_hub_id), "Hub ids of data sets"),
    "language": (lambda value: _texts(value, re.compile(r"[a-z]{2,3}|multilingual|code").fullmatch), "ISO 639 codes"),
    "tags": (lambda value: _texts(value), "a list of words"),
    "model-index": (lambda value: isinstance(value, list), "results of evaluations"),
}


def is_hub_id(place: str) -> bool:
    """Return whether a text has the form of a repository's id on the Hub, `OWNER/NAME` or `NAME`."""
    return _HUB_ID.fullmatch(place) is not None and not place.endswith((".", "-", ".git"))


def find_hub_id(place: str | os.PathLike[str] | None) -> str | None:
    """Return the Hub id of a model's place, or `None` for a local folder and a model in memory.

    Args:
        place: folder, Hub id, or folder of a snapshot in the Hub's cache, which tells the id.
    """
    text = os.fspath(place) if place else ""
    if (cached := _CACHED.search(text + os.sep)) is not None:
        return f"{cached['owner']}/{cached['name']}"
    return text if is_hub_id(text) and not os.path.exists(text) else None


@dataclass(frozen=True)
class BaseModel:
    """A model that another one was made from.

    Args:
        place: folder or Hub id, or `None` for a model in memory. A folder never appears in a card.
        role: what it gave to the new model, such as `"language model"`.
        hub_id: Hub id; found from `place` by default.
        license: the Hub's name of its licence, or `None` where it is unknown; found from `place` by default.
    """

    place: str | None
    role: str = "base model"
    hub_id: str | None = None
    license: str | None = None

    @classmethod
    def find(cls, place: str | os.PathLike[str] | None, role: str = "base model") -> BaseModel:
        """Describe the model of a folder or Hub id, with the licence that its own card names."""
        text = os.fspath(place) if place else None
        return cls(text, role, find_hub_id(text), find_license(text))

    def is_published(self) -> bool:
        """Return whether it is the published model, by its id or its layout."""
        return self.hub_id in PUBLISHED_IDS or (self.place is not None and is_published_folder(self.place))

    def describe(self) -> str:
        """Return its Hub id as a link, or that none is known."""
        if self.hub_id is None:
            return "a model without an id on the Hub"
        return f"[{self.hub_id}](https://huggingface.co/{self.hub_id})"


def find_license(place: str | os.PathLike[str] | None) -> str | None:
    """Return the licence of a model by the Hub's name: that of its card, or GPL-3.0 for the published weights.

    Args:
        place: folder or Hub id. Of a model on the Hub the card is read if it can be; no error is raised.
    """
    if not place:
        return None
    if BaseModel(os.fspath(place), hub_id=find_hub_id(place)).is_published():
        return PUBLISHED_LICENSE
    value = read_card(place).get("license")
    return value if value in LICENSES else None


def is_published_folder(place: str | os.PathLike[str]) -> bool:
    """Return whether a local folder is in the layout of the published weights."""
    return Path(place, "vicuna-13b_processor").is_dir()


def read_card(place: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the metadata of a model's card; an empty dictionary where there is none or it cannot be read."""
    return _read_card(os.fspath(place)) if os.path.isdir(place) else _read_remote_card(os.fspath(place))


def _read_card(place: str) -> dict[str, Any]:
    try:
        file = cached_file(place, "README.md", **_QUIET)
        return {} if file is None else read_metadata(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


# Every checkpoint of a run asks for the card of the same base model; the Hub is asked once.
_read_remote_card = cache(_read_card)


def choose_license(bases: Sequence[BaseModel]) -> str | None:
    """Return the licence of a model that was made from others, or `None` if one of theirs is unknown.

    GPL-3.0 follows what was made from it. Where other licences differ, the model has all of them: `"other"`.
    """
    names = {base.license for base in bases}
    if PUBLISHED_LICENSE in names:
        return PUBLISHED_LICENSE
    if not names or None in names:
        return None
    return names.pop() if len(names) == 1 else "other"


def build_metadata(
    name: str,
    *,
    bases: Sequence[BaseModel] = (),
    relation: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    language: Sequence[str] = (),
    tags: Sequence[str] = (),
    is_pipeline: bool = True,
    results: Sequence[EvalResult] = (),
) -> dict[str, Any]:
    """Return checked metadata of a card as a dictionary; what is not known is left out.

    Args:
        name: name of the model.
        bases: models that it was made from.
        relation: its relation to them, one of `RELATIONS`.
        license: its licence by the Hub's name.
        datasets: Hub ids of the data it was trained on.
        language: ISO 639 codes of the languages it answers in.
        tags: further tags.
        is_pipeline: whether `pipeline("image-text-to-text")` runs it.
        results: results of evaluations.

    Raises:
        ValueError: a value is none that the Hub knows; the message names the key.
    """
    ids = [base.hub_id for base in bases if base.hub_id is not None]
    values: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text" if is_pipeline else None,
        "license": license,
        "license_name": "licences-of-the-base-models" if license == "other" else None,
        "base_model": ids[0] if len(ids) == 1 else ids or None,
        "base_model_relation": relation if ids else None,
        "datasets": list(datasets) or None,
        "language": list(language) or None,
        "tags": ["lyrics", *tags],
    }
    data = ModelCardData(
        model_name=name if results else None,
        eval_results=list(results) or None,
        **{key: value for key, value in values.items() if value is not None},
    )
    metadata = data.to_dict()
    check_metadata(metadata)
    return metadata


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check metadata against `TABLE`; keys that it does not list pass.

    Raises:
        ValueError: a value is none that the Hub knows; the message names the key, the value and what it may be.
    """
    for key, value in metadata.items():
        allowed, expected = TABLE.get(key, (lambda _: True, ""))
        if not allowed(value):
            raise ValueError(f"The model card's {key} must be {expected}, got {value!r}.")
