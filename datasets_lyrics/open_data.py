"""One word for a source, as a user gives it, and what it turns out to be."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from .hf_datasets import DatasetPlace, DatasetSource, StreamSource, file_kind, is_saved_dataset
from .sources import FolderSource, Source, TarSource, is_tar_pattern


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
) -> Source:
    """Find out what a source is, and cut it into shards.

    Args:
        source: a folder of pictures; tar shards (`shards-{0000..0099}.tar`, wildcards, URLs); a `.jsonl` or `.parquet`
            file whose rows name pictures or hold them; a folder of `save_to_disk`; a Hub id; or a `datasets.Dataset`.
        shard_size: pictures in a shard of the store. Tar shards and streams are cut as they are.
        limit: take so many pictures only, from the beginning.
        image, key: names of columns. For tar shards `image` is the extension of the picture.
        root: where relative paths begin, and which no path leaves: by default the folder of a file. Data sets that hold
            paths rather than pictures need it.
        split, name, revision, streaming: of a data set.

    Raises:
        FileNotFoundError: when there is no such thing.
        ValueError: when there is no picture in it, or an option does not belong to it.
    """
    for option, value in (("shard_size", shard_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}.")
    if isinstance(source, str | os.PathLike):
        place = os.fspath(source)
        if is_tar_pattern(place):
            _refuse(place, key=key, root=root)
            return TarSource(place, limit=limit) if image is None else TarSource(place, (image,), limit)
        if os.path.isdir(place) and not is_saved_dataset(place):
            _refuse(place, key=key, image=image, root=root)
            return FolderSource(place, shard_size, limit)
        is_path = "://" not in place and (file_kind(place) is not None or place.count("/") > 1)
        if is_path and not os.path.exists(place) and not glob.glob(place):
            raise FileNotFoundError(f"There is no {place}.")
        root = Path(place).parent if root is None and file_kind(place) else root
        place = os.path.abspath(place) if is_path or os.path.exists(place) else place  # workers may be elsewhere
        where = DatasetPlace(place, split, name, revision, streaming)
        if streaming:
            return StreamSource(where, image, key, root, limit)
        source = where
    return DatasetSource(source, shard_size, image, key, root, limit)


def _refuse(place: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{place} has no columns, so that {name}={value!r} means nothing.")
