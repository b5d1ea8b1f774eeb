"""The catalog: every data set by its name, and the word `NAME:ROOT` that opens one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial

from . import benchmarks, captions, dialogue, own_data, pairs, referring, tables, text_vqa, visual_genome, vqa
from .formats import Format
from .reading import CatalogReader

MODULES = (captions, pairs, vqa, visual_genome, text_vqa, referring, dialogue, benchmarks, own_data, tables)
CATALOG: dict[str, Format] = {one.name: one for module in MODULES for one in module.FORMATS}


def is_catalog_word(word: str) -> bool:
    """Return whether a word is `NAME:ROOT` or `NAME/SPLIT:ROOT` of the catalog."""
    return ":" in word and word.partition(":")[0].partition("/")[0] in CATALOG


def find_format(name: str) -> Format:
    """Return a data set of the catalog.

    Raises:
        ValueError: when there is none of that name, with similar ones, or else with all.
    """
    if name not in CATALOG:
        raise ValueError(f"There is no data set {name!r}. {suggest(name, CATALOG)} `lyrics data list` shows them.")
    return CATALOG[name]


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a sentence for the message about an unknown name: the similar names, or all where none is similar."""
    known = list(known)
    plain = {"".join(filter(str.isalnum, one)).lower(): one for one in known}
    similar = get_close_matches("".join(filter(str.isalnum, name)).lower(), plain, n=3, cutoff=0.7)
    if similar:
        return f"Did you mean {' or '.join(plain[one] for one in similar)}?"
    return f"Known are {', '.join(known)}."


def open_reader(name: str, root: str | os.PathLike, split: str | None = None) -> CatalogReader:
    """Open a data set of the catalog.

    Args:
        name: name in the catalog.
        root: its folder; or a file, which is then read instead of the file of the usual name.
        split: name of the split; by default the one whose file was named, or else the first one.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        ValueError: when there is no such data set or split.
    """
    data = find_format(name)
    if os.path.isfile(root):
        folder, file = os.path.split(os.path.abspath(root))
        own = [key for key, one in data.splits.items() if any(map(partial(fnmatchcase, file), one.files[0].split("|")))]
        splits = {key: one if key in own else replace(one, size=None) for key, one in data.splits.items()}
        return CatalogReader(replace(data, splits=splits), folder, split or next(iter(own), None), file)
    return CatalogReader(data, root, split)


def open_word(word: str, split: str | None = None) -> CatalogReader:
    """Open `NAME:ROOT` or `NAME/SPLIT:ROOT`; see `open_reader`.

    Args:
        word: name, split and root.
        split: split, if the word names none; the usual words `train` and `validation` stand for the data set's own.

    Raises:
        ValueError: when no root is named.
    """
    name, _, root = word.partition(":")
    name, _, own_split = name.partition("/")
    if not root:
        raise ValueError(f"{word!r} names no folder: write {name}:FOLDER.")
    splits, root = find_format(name).splits, os.path.expanduser(root)
    is_file = os.path.isfile(root)
    if own_split:
        split = own_split
    elif split in (None, "train") and is_file:
        split = None  # that of the file
    elif split not in splits:
        first = next(iter(splits))
        has_none = len(splits) == 1 and is_file  # one file, such as a table
        usual = {"train": first, "validation": first if has_none else "val"}
        split = usual.get(split or "train", split)
    return open_reader(name, root, split)
