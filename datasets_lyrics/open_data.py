"""One word for data, as a user gives it, opened the same way for training (rows) and for refinement (images).

| word | kind |
|---|---|
| `shapes:N`, `chats:N`, `pairs:N`, each also with `:SEED` | `drawn`: rows that are drawn on the spot |
| a folder of `save_to_disk` | `saved` |
| any other folder | `folder` of images; for training with a `metadata.jsonl` |
| `shards/{0000..0099}.tar`, `*.tar`, `.tgz`, `.tar.gz`, URLs of such | `tar`: WebDataset shards |
| `.jsonl`, `.ndjson`, `.json`, `.csv`, `.parquet`, patterns and URLs of such | `files` |
| `NAME:ROOT`, `NAME/SPLIT:ROOT` | `catalog`: a data set of the field, as it is distributed, in a folder |
| a `.yaml` file, `mixture:NAME` | `mixture`: several data sets of the catalog |
| `OWNER/NAME` | `hub`: a data set on the Hub |
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from .catalog.registry import CATALOG, is_catalog_word, suggest
from .catalog.row_store import catalog_images, guard_of, open_catalog_rows
from .hf_datasets import (
    FILE_FORMATS,
    DatasetImages,
    DatasetPlace,
    DatasetsSource,
    StreamImages,
    download_folders,
    format_of_file,
    is_saved_dataset,
    require_root,
    without_decoding,
)
from .mixtures.mixture import open_mixture
from .mixtures.pictures import mixture_pictures
from .mixtures.recipe import find_mixture, is_mixture_word, read_mixture
from .path_guard import IMAGE_COLUMNS, PathGuard
from .sources import DrawnImages, FolderImages, Source
from .toy_data import ShapeChats, ShapePairs, ShapeRows
from .webdataset import TarImages, TarSource, expand_shards, is_tar_pattern

DRAWN = {"shapes": ShapeRows, "chats": ShapeChats, "pairs": ShapePairs}

Kind = Literal["drawn", "saved", "folder", "tar", "files", "catalog", "mixture", "hub"]


def kind_of(word: str) -> Kind:
    """Return what a word is; see the table of this module.

    Raises:
        FileNotFoundError: when it is a path, and nothing is there.
        ValueError: when it is a file of an unknown format.
    """
    if word.partition(":")[0] in DRAWN and ":" in word:
        return "drawn"
    if is_catalog_word(word):
        return "catalog"
    if is_mixture_word(word):
        find_mixture(word)
        return "mixture"
    if os.path.isdir(word):
        return "saved" if is_saved_dataset(word) else "folder"
    if is_tar_pattern(word):
        return "tar"
    if format_of_file(word) is not None:
        if "://" not in word:
            expand_shards(word)
        return "files"
    if os.path.exists(word):
        raise ValueError(f"{word} is a file of an unknown format; known are {', '.join(FILE_FORMATS)} and tar shards.")
    if word in CATALOG:
        raise ValueError(
            f"{word} is a data set of `lyrics data list`: write {word}:FOLDER, with the folder it lies in."
        )
    if "://" in word or word.startswith((".", "/")):
        raise FileNotFoundError(f"There is no {word}.")
    if ":" in word:  # which no name on the Hub has
        known = (*CATALOG, *DRAWN, "mixture")
        name = word.partition(":")[0].partition("/")[0]
        raise ValueError(f"{word!r} opens nothing: there is no data set {name!r}. {suggest(name, known)}")
    if word.count("/") > 1:
        raise FileNotFoundError(f"There is no {word}.")
    return "hub"


def open_rows(
    source: str | os.PathLike,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    image_root: str | os.PathLike | None = None,
    split: str = "train",
    streaming: bool = False,
    fetch_urls: bool = False,
    need_captions: bool = False,
) -> Any:
    """Open rows for training.

    Args:
        source: a word of the table above.
        image_column, caption_column: names of columns; images may also be in `images`, as a list.
        image_root: folder of relative paths, which no path leaves; by default the folder of the data. For a mixture,
            the folder of its data sets; for the catalog, a further folder that links may lead to.
        split: name of the split.
        streaming: bool, whether to read shard by shard.
        fetch_urls: bool, whether rows may name URLs of images.
        need_captions: bool, whether a data set of the catalog must have captions, as the first stage needs them.

    Returns:
        A map-style data set, or shards of rows (`TarSource`, `DatasetsSource`).

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when it cannot be read.
    """
    word = os.fspath(source)
    kind = kind_of(word)
    if kind == "drawn":
        return open_drawn(word)
    if kind == "catalog":
        _refuse_stream(word, streaming)
        return open_catalog_rows(word, split, image_root, need_captions)
    if kind == "mixture":
        _refuse_stream(word, streaming)
        root = None if image_root is None else os.fspath(image_root)
        return open_mixture(read_mixture(find_mixture(word)), root, need_captions)
    place, options = DatasetPlace(word, split, streaming=streaming), {}
    columns = tuple(dict.fromkeys((image_column, *IMAGE_COLUMNS)))
    if kind == "tar":
        guard = replace(PathGuard.below(image_root, fetch_urls=fetch_urls), columns=columns)
        return TarSource(word, image_column, caption_column, guard)
    guard = replace(place.guard(image_root, fetch_urls), columns=columns)
    if kind == "folder":
        place, options = replace(place, place="imagefolder"), {"data_dir": word}
        guard = replace(guard, allowed=(*(guard.allowed or ()), *download_folders()))  # where archives are extracted
    loaded = place.load(**options)
    require_root(guard, loaded, columns)
    if streaming:
        return DatasetsSource(loaded, guard, place.files())
    if not len(loaded):
        raise ValueError(f"There is no row in {word}.")
    return without_decoding(loaded).with_transform(partial(PathGuard.check_batch, guard))


def open_source(
    source: Any,
    shard_size: int = 1000,
    limit: int | None = None,
    image: str | None = None,
    key: str | None = None,
    root: str | os.PathLike | None = None,
    split: str = "train",
    name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    fetch_urls: bool = False,
) -> Source:
    """Open images for refinement, cut into shards.

    Args:
        source: a word of the table above, or a `datasets.Dataset`.
        shard_size: int, images in a shard of the store. Tar shards and streams are cut as they are.
        limit: int, images to take, from the first on.
        image, key: names of columns. For tar shards `image` is the extension of the image.
        root: folder of relative paths, which neither a path nor a link leaves; by default the folder of the data.
            Data sets of the Hub that hold paths rather than images need it. For a mixture, the folder of its data sets.
        split, name, revision, streaming: split, configuration and revision of a data set, and whether it is a stream.
        fetch_urls: bool, whether rows may name URLs of images.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when there is no image in it, or an option does not belong to it.
    """
    for option, value in (("shard_size", shard_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}.")
    if not isinstance(source, str | os.PathLike):
        guard = PathGuard.below(root, fetch_urls=fetch_urls) if root else PathGuard(fetch_urls=fetch_urls)
        return DatasetImages(source, shard_size, image, key, guard, limit)
    word = os.fspath(source)
    kind = kind_of(word)
    if kind == "drawn":
        _refuse(word, key=key, image=image, root=root)
        return DrawnImages(word, open_drawn(word), shard_size, limit)
    if kind == "tar":
        _refuse(word, key=key, root=root)
        return TarImages(word, limit=limit) if image is None else TarImages(word, (image,), limit)
    if kind == "catalog":
        _refuse(word, key=key, image=image)
        _refuse_stream(word, streaming)
        images, reader = catalog_images(word, split)
        return DatasetImages(images, shard_size, "image", None, guard_of(reader, root), limit)
    if kind == "mixture":
        _refuse(word, key=key, image=image)
        _refuse_stream(word, streaming)
        recipe = read_mixture(find_mixture(word))
        images, guard = mixture_pictures(open_mixture(recipe, root), root or recipe.root)
        return DatasetImages(images, shard_size, "image", "key", guard, limit)
    if kind == "folder":
        _refuse(word, key=key, image=image)
        return FolderImages(word, shard_size, limit, root)
    is_local = kind != "hub" and "://" not in word
    place = DatasetPlace(os.path.abspath(word) if is_local else word, split, name, revision, streaming)
    guard = place.guard(root, fetch_urls)
    if streaming:
        return StreamImages(place, image, key, guard, limit)
    return DatasetImages(place, shard_size, image, key, guard, limit)


def open_drawn(word: str) -> ShapeRows:
    """Return rows that are drawn on the spot.

    Args:
        word: `KIND:COUNT` or `KIND:COUNT:SEED`.

    Raises:
        ValueError: when it is neither.
    """
    kind, *numbers = word.split(":")
    if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
        raise ValueError(f"{word!r} is not {kind}:COUNT or {kind}:COUNT:SEED.")
    if not int(numbers[0]):
        raise ValueError(f"{word!r} has no rows: COUNT must be at least 1.")
    return DRAWN[kind](*map(int, numbers))


def _refuse_stream(word: str, streaming: bool) -> None:
    if streaming:
        raise ValueError(f"{word} is not read as a stream: its rows are kept on disk and read by number.")


def _refuse(word: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{word} has no columns, so that {name}={value!r} means nothing.")
