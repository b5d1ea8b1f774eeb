"""Which file of a processor's checkpoint is missing or damaged: Transformers' errors rarely say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer
from transformers.utils.hub import cached_file

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision")

TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "chat_template.json", "config.json")


def find_file(checkpoint: str | os.PathLike, name: str, **hub_kwargs: Any) -> str | None:
    """Where a file of a directory or Hub id lies, or `None`; `hub_kwargs` may also hold a `subfolder`."""
    return cached_file(
        checkpoint,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_kwargs,
    )


def find_damage(checkpoint: str | os.PathLike, folders: Iterable[str], **hub_kwargs: Any) -> str | None:
    """What is wrong with the first damaged file of a processor or of a tokenizer in these folders, if one is."""
    for folder in folders:
        for name in (*PROCESSOR_FILES, *TOKENIZER_FILES):
            path = find_file(checkpoint, name, subfolder=folder, **hub_kwargs)
            if path is not None and name.endswith(".json") and (damage := _damage(path)):
                return damage
    return None


def _damage(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        return f"{path!r} is not JSON: {error}"
    if not isinstance(value, dict):
        return f"{path!r} holds no object, but a {type(value).__name__}."
    if os.path.basename(path) == "tokenizer.json":
        try:
            Tokenizer.from_file(path)
        except Exception as error:  # noqa: BLE001  (the library raises nothing more special)
            return f"{path!r} is no tokenizer: {error}"
    return None
