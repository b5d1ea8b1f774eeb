"""The catalog: every data set by its name, and the word `NAME:ROOT` that opens one."""

from __future__ import annotations

import os
from dataclasses import replace

from . import benchmarks, captions, dialogue, own_data, pairs, referring, text_vqa, visual_genome, vqa
from .formats import Format
from .reading import CatalogReader

MODULES = (captions, pairs, vqa, visual_genome, text_vqa, referring, dialogue, benchmarks, own_data)
CATALOG: dict[str, Format] = {one.name: one for module in MODULES for one in module.FORMATS}


def is_catalog_word(word: str) -> bool:
    """Return whether a word is `NAME:ROOT` or `NAME/SPLIT:ROOT` of the catalog."""
    return ":" in word and word.partition(":")[0].partition("/")[0] in CATALOG


def find_format(name: str) -> Format:
    """Return a data set of the catalog.

    Raises:
        ValueError: when there is none of that name, with those that there are.
    """
    if name not in CATALOG:
        raise ValueError(f"There is no data set {name!r}; known are {', '.join(CATALOG)} (see `lyrics data list`).")
    return CATALOG[name]


def open_reader(name: str, root: str | os.PathLike, split: str | None = None) -> CatalogReader:
    """Open a data set of the catalog.

    Args:
        name: name in the catalog.
        root: its folder; or a file, which is then read instead of the file of the usual name.
        split: name of the split; by default the first one.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        ValueError: when there is no such data set or split.
    """
    data = find_format(name)
    if os.path.isfile(root):
        folder, file = os.path.split(os.path.abspath(root))
        pattern = file.replace("[", "[[]")
        splits = {key: replace(one, files=(pattern, *one.files[1:]), size=None) for key, one in data.splits.items()}
        return CatalogReader(replace(data, splits=splits), folder, split, file)
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
    splits = find_format(name).splits
    if not own_split and split not in splits:
        usual = {"train": next(iter(splits)), "validation": "val"}
        split = usual.get(split or "train", split)
    return open_reader(name, os.path.expanduser(root), own_split or split)
