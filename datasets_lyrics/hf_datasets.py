"""Sources that `datasets` reads: JSON lines, Parquet, data sets on disk or on the Hub, also as a stream."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..refinement.storage.errors import DuplicateKeyError
from ..refinement.storage.index import hash_key
from ..utils.optional_imports import import_optional
from .sources import Item, Source, as_key, hash_names

IMAGE_COLUMNS = ("image", "images", "img", "picture", "jpg", "png", "image_path", "file_name", "filename", "path")

_URL = re.compile(r"[a-zA-Z][\w+.-]*://|data:")
_ROWS = 10_000  # whose names are read at a time


@dataclass(frozen=True)
class DatasetPlace:
    """Where a data set is; a worker loads it from there again.

    Attributes:
        place: a `.jsonl` or `.parquet` file (or a pattern of such), a folder of `save_to_disk`, or a Hub id.
        split: of a data set that has several.
        name: of the configuration on the Hub.
        revision: on the Hub.
        streaming: read it as a stream.
    """

    place: str
    split: str = "train"
    name: str | None = None
    revision: str | None = None
    streaming: bool = False

    def load(self) -> Any:
        """A `Dataset` or, as a stream, an `IterableDataset`.

        Raises:
            ValueError: when it cannot be read.
        """
        datasets = import_optional("datasets")
        try:
            return self._load(datasets)
        except datasets.exceptions.DatasetsError as error:
            raise ValueError(f"{self.place} cannot be read: {error}; {error.__cause__}") from error

    def _load(self, datasets: Any) -> Any:
        if (kind := file_kind(self.place)) is not None:
            return datasets.load_dataset(kind, data_files=self.place, split="train", streaming=self.streaming)
        if is_saved_dataset(self.place):
            loaded = datasets.load_from_disk(self.place)
            loaded = loaded[self.split] if isinstance(loaded, datasets.DatasetDict) else loaded
            return loaded.to_iterable_dataset() if self.streaming else loaded
        return datasets.load_dataset(
            self.place, self.name, split=self.split, revision=self.revision, streaming=self.streaming
        )


def file_kind(place: str) -> str | None:
    """How `datasets` calls the kind of a file, by its ending."""
    endings = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}
    return endings.get(Path(place).suffix.lower())


def is_saved_dataset(place: str) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((Path(place) / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


class DatasetSource(Source):
    """The rows of a map-style data set.

    Keys are those of the key column; without one they are the paths in the image column, where a path that comes again
    is the same picture and is refined once; where the pictures are in the data set itself, they are the rows' numbers.
    In a row with several pictures each has its number after the key: `KEY#1`.

    Args:
        dataset: a `datasets.Dataset`, or where it can be loaded.
        shard_size: rows in a shard.
        image, key: names of columns; the image column is found by its type or by its usual name.
        root: where relative paths begin, and which no path leaves; without it paths are taken as they are.
        limit: take so many rows only.

    Raises:
        ValueError: when there is no such column.
        DuplicateKeyError: when a key of the key column is there twice.
    """

    def __init__(
        self,
        dataset: Any,
        shard_size: int,
        image: str | None = None,
        key: str | None = None,
        root: str | os.PathLike | None = None,
        limit: int | None = None,
    ) -> None:
        self.place = dataset if isinstance(dataset, DatasetPlace) else None
        self.shard_size, self.key, self.root = shard_size, key, _absolute(root)
        loaded = dataset.load() if isinstance(dataset, DatasetPlace) else dataset
        self.image = find_image_column(loaded, image, key)
        _check_paths(self.place, loaded, self.image, root)
        self._dataset: Any = _undecoded(loaded, self.image)
        self._named_by = key or (self.image if _holds_text(loaded, self.image) else None)
        self.rows, self._names_sha256 = self._choose_rows(limit)
        self.total, self.shards = len(self.rows), -(-len(self.rows) // shard_size)
        if not self.total:
            raise ValueError(f"There is no row in {self.place.place if self.place else dataset}.")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self.place is None else {"_dataset": None})

    @property
    def dataset(self) -> Any:
        """The data set, its pictures not decoded."""
        if self._dataset is None and self.place is not None:
            self._dataset = _undecoded(self.place.load(), self.image)
        return self._dataset

    def describe(self) -> dict[str, Any]:
        """See `Source`. Where rows have no names, the first, the middle and the last picture stand for all."""
        return {"kind": "dataset", "pictures": self.total, "keys_sha256": self._names_sha256 or self._hash_samples()}

    def items(self, shard: int) -> Iterator[Item]:
        """See `Source`."""
        rows = self.rows[shard * self.shard_size : (shard + 1) * self.shard_size]
        columns = [name for name in (self.image, self.key) if name is not None]
        selected = self.dataset.select_columns(columns).select(rows)
        for row, values in zip(rows, selected, strict=True):
            name = str(row) if self._named_by is None else str(values[self._named_by])
            yield from items_of(name, values[self.image], self.root, f"row {row}")

    def _choose_rows(self, limit: int | None) -> tuple[Any, str | None]:
        """The rows to refine, and the SHA-256 of their names."""
        count = len(self._dataset) if limit is None else min(limit, len(self._dataset))
        if self._named_by is None:
            return range(count), None
        is_repeated = _find_repeated(self._names(count), count)
        first: dict[str, int] = {}
        keep = np.ones(count, bool)
        for row, name in enumerate(self._names(count) if is_repeated.any() else ()):
            if is_repeated[row] and first.setdefault(name, row) != row:
                if self.key is not None:
                    raise DuplicateKeyError(f"Key {name!r} is there twice: rows {first[name]} and {row}.")
                keep[row] = False
        rows = range(count) if keep.all() else np.flatnonzero(keep)
        return rows, hash_names(as_key(name) for name, kept in zip(self._names(count), keep, strict=True) if kept)

    def _names(self, count: int) -> Iterator[str]:
        column = self._dataset.select_columns([self._named_by]).with_format("arrow")
        for start in range(0, count, _ROWS):
            yield from map(str, column[start : min(start + _ROWS, count)][self._named_by].to_pylist())

    def _hash_samples(self) -> str:
        digest = hashlib.sha256()
        for row in (0, len(self.rows) // 2, len(self.rows) - 1):
            digest.update(repr(self.dataset[int(row)][self.image]).encode())
        return digest.hexdigest()


class StreamSource(Source):
    """A data set that is read as a stream: one shard of the store for each of its files.

    Args:
        place: where it is.
        image, key, root: as of `DatasetSource`. Without a key column, keys are `FILE-ROW`, both numbers.
        limit: take so many rows only, in one shard.
    """

    def __init__(
        self,
        place: DatasetPlace,
        image: str | None = None,
        key: str | None = None,
        root: str | os.PathLike | None = None,
        limit: int | None = None,
    ) -> None:
        self.place, self.key, self.limit, self.root = place, key, limit, _absolute(root)
        stream = place.load()
        self.image = find_image_column(stream, image, key)
        _check_paths(place, stream, self.image, root)
        self.shards = 1 if limit is not None else stream.num_shards
        self.total = limit if limit is not None else _known_rows(stream, place.split)

    def describe(self) -> dict[str, Any]:
        """See `Source`."""
        return {"kind": "stream", **vars(self.place), "files": self.shards, "limit": self.limit}

    def items(self, shard: int) -> Iterator[Item]:
        """See `Source`."""
        stream = _undecoded(self.place.load(), self.image)
        part = stream.take(self.limit) if self.limit is not None else stream.shard(self.shards, shard)
        for row, values in enumerate(part):
            name = f"{shard:06d}-{row:09d}" if self.key is None else str(values[self.key])
            yield from items_of(name, values[self.image], self.root, f"file {shard}, row {row}")


def find_image_column(dataset: Any, image: str | None, key: str | None) -> str:
    """The column that holds the pictures.

    Raises:
        ValueError: naming the columns that there are.
    """
    datasets = import_optional("datasets")
    features = dataset.features or {}
    columns = list(features or dataset.column_names or next(iter(dataset)))
    for name in (image, key):
        if name is not None and name not in columns:
            raise ValueError(f"There is no column {name!r}; the columns are {', '.join(map(repr, columns))}.")
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    usual = [name for name in IMAGE_COLUMNS if name in columns]
    if image is None and not typed and not usual:
        raise ValueError(f"Name the column with the pictures; the columns are {', '.join(map(repr, columns))}.")
    return image or [*typed, *usual][0]


def items_of(name: str, value: Any, root: Path | None, place: str) -> Iterator[Item]:
    """The pictures of one row: one, or a list of them."""
    values = value if isinstance(value, list) else [value]
    for number, one in enumerate(values):
        key = as_key(name if len(values) == 1 else f"{name}#{number}")
        image, error = picture_of(one, root)
        yield Item(key, image, place, error)


def picture_of(value: Any, root: Path | None) -> tuple[Any, str | None]:
    """What a data set holds for a picture -> a `Path`, bytes or a picture; or why there is none."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        return None, "There is no picture."
    if not isinstance(value, str):
        return value, None
    if _URL.match(value):
        return None, f"{value[:200]} is a URL; pictures are not fetched: download them first."
    if root is None:
        return Path(value), None
    path = os.path.normpath(root / value)  # links below the root are the user's, `..` may be anybody's
    if not Path(path).is_relative_to(root):
        return None, f"{value[:200]} lies outside {root}."
    return Path(path), None


def _absolute(root: str | os.PathLike | None) -> Path | None:
    return None if root is None else Path(os.path.abspath(root))


def _check_paths(place: DatasetPlace | None, dataset: Any, image: str, root: Any) -> None:
    """A data set that somebody else has put on the Hub does not choose which files are read here."""
    is_local = place is None or file_kind(place.place) is not None or is_saved_dataset(place.place)
    if not is_local and root is None and _holds_text(dataset, image):
        raise ValueError(f"The column {image!r} holds paths, not pictures: say in which folder they are (`root`).")


def _undecoded(dataset: Any, column: str) -> Any:
    datasets = import_optional("datasets")
    feature: Any = (dataset.features or {}).get(column)
    undecoded = datasets.Image(decode=False)
    if isinstance(feature, datasets.Image):
        return dataset.cast_column(column, undecoded)
    if isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
        return dataset.cast_column(column, datasets.List(undecoded))
    return dataset


def _holds_text(dataset: Any, column: str) -> bool:
    return getattr((dataset.features or {}).get(column), "dtype", None) in ("string", "large_string")


def _known_rows(stream: Any, split: str) -> int | None:
    splits = stream.info.splits or {}
    return splits[split].num_examples if split in splits else None


def _find_repeated(names: Iterator[str], count: int) -> np.ndarray:
    """(count,) bool: whether 64 bits of a name's hash are there again."""
    hashes = np.fromiter((hash_key(as_key(name)) for name in names), np.uint64, count)
    values, counts = np.unique(hashes, return_counts=True)
    return np.isin(hashes, values[counts > 1])
