"""Data that the `datasets` library reads: files, saved data sets and the Hub; rows for training, images to refine."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.optional_imports import import_optional
from .path_guard import AS_GIVEN, PathGuard, read_image_value
from .sources import DuplicateKeyError, Item, SlicedSource, Source, as_key, hash_names, starts_of
from .webdataset import expand_shards

FILE_FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
IMAGE_COLUMNS = ("image", "images", "img", "picture", "jpg", "png", "image_path", "file_name", "filename", "path")

_ROWS = 10_000  # whose names are read at a time


def _text_or_none(cell: str) -> str | None:
    return cell or None


# Pandas reads `3` as a number and `None` or `NA` as nothing. These columns stay as they are written, or empty.
_TEXTS = ("prompt", "completion", "question", "caption", "chosen", "rejected", "expected_answer", *IMAGE_COLUMNS)
_AS_WRITTEN = {"converters": dict.fromkeys(_TEXTS, _text_or_none), "keep_default_na": False, "na_values": [""]}

_NAME_SPLIT = "Name one of them: split, or --train_split and --eval_split of a training."


@dataclass(frozen=True)
class DatasetPlace:
    """Location of a data set, from which a worker loads it again.

    Attributes:
        place: str, a file of `FILE_FORMATS` or a pattern of such, a folder of `save_to_disk`, or a Hub id.
        split: str, name of the split.
        name: str, configuration on the Hub.
        revision: str, revision on the Hub.
        streaming: bool, whether it is read as a stream.
    """

    place: str
    split: str = "train"
    name: str | None = None
    revision: str | None = None
    streaming: bool = False

    def load(self, **options: Any) -> Any:
        """Load a `Dataset` or, with `streaming`, an `IterableDataset`.

        Args:
            options: further arguments of `datasets.load_dataset`.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it cannot be read.
        """
        datasets = import_optional("datasets")
        try:
            if is_saved_dataset(self.place):
                loaded = datasets.load_from_disk(self.place)
                loaded = self._split_of(loaded) if isinstance(loaded, datasets.DatasetDict) else loaded
                return loaded.to_iterable_dataset() if self.streaming else loaded
            if files := self.files():
                file_format: Any = format_of_file(self.place)
                reading = {"data_files": files, "split": "train", "streaming": self.streaming}
                return datasets.load_dataset(file_format, **reading, **(_AS_WRITTEN if file_format == "csv" else {}))
            return datasets.load_dataset(
                self.place, self.name, split=self.split, revision=self.revision, streaming=self.streaming, **options
            )
        except (datasets.exceptions.DatasetsError, UnicodeDecodeError) as error:
            cause = f"; {error.__cause__}" if error.__cause__ else ""
            found = find_broken_line(self.files())
            raise ValueError(found or f"{self.place} cannot be read: {error}{cause}") from error
        except StopIteration:  # of a file that is empty
            raise ValueError(f"There is no row in {self.place}.") from None
        except ValueError as error:
            if not str(error).startswith("Unknown split"):
                raise
            raise ValueError(f"{error} {_NAME_SPLIT}") from error

    def _split_of(self, loaded: Mapping[str, Any]) -> Any:
        if self.split not in loaded:
            names = ", ".join(map(repr, loaded))
            raise ValueError(f"{self.place} has no split {self.split!r}; it has {names}. {_NAME_SPLIT}")
        return loaded[self.split]

    def files(self) -> list[str]:
        """Return the files of `FILE_FORMATS` that the place names, in their order; none for other data."""
        if is_saved_dataset(self.place) or format_of_file(self.place) is None:
            return []
        return [self.place] if "://" in self.place else expand_shards(self.place)

    def guard(self, root: str | os.PathLike | None = None, fetch_urls: bool = False) -> PathGuard:
        """Return the rule for paths in the rows: relative to their file, or to `root`, which no path leaves.

        Without `root`, a data set of the Hub, a file behind a URL, and files of several folders may name nothing but
        what the library itself has downloaded.
        """
        if root is None and os.path.isdir(self.place):
            root = self.place
        elif root is None and format_of_file(self.place) and "://" not in self.place:
            folders = {os.path.dirname(os.path.abspath(file)) for file in expand_shards(self.place)}
            root = folders.pop() if len(folders) == 1 else None
        return PathGuard.below(root, *(download_folders() if root is None else ()), fetch_urls=fetch_urls)


def download_folders() -> tuple[Path, ...]:
    """Return the folders in which the Hub's libraries keep what they have downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE

    config = import_optional("datasets").config
    return Path(config.HF_DATASETS_CACHE), Path(config.DOWNLOADED_DATASETS_PATH), Path(HF_HUB_CACHE)


def format_of_file(place: str) -> str | None:
    """Return the name that `datasets` has for the format of a file, by its ending, or `None`."""
    place = place.partition("?")[0] if "://" in place else place
    return FILE_FORMATS.get(Path(place.rstrip("}")).suffix.lower())


def is_saved_dataset(place: str | os.PathLike) -> bool:
    """Return whether a folder was written by `save_to_disk`; `datasets` looks for the same files."""
    has = {name: (Path(place) / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json")}
    return has["dataset_dict.json"] or (has["dataset_info.json"] and has["state.json"])


def name_of_place(place: str) -> str:
    """Return a place as a store records it: the name of a file, pattern or folder without its folder, or a Hub id."""
    return os.path.basename(place) if os.path.isabs(place) else place


def find_broken_line(files: Sequence[str]) -> str | None:
    """Return the first line of JSON files that is no JSON, as a sentence with file, line and reason, or `None`."""
    for file in files:
        if "://" in file or format_of_file(file) != "json":
            continue
        with open(file, "rb") as lines:
            first = next(lines, b"")
            if first.lstrip().startswith(b"["):  # one list
                lines.seek(0)
                texts: Iterator[bytes] = iter([lines.read()])
            else:
                texts = itertools.chain([first], lines)
            for number, text in enumerate(texts, start=1):
                try:
                    _ = text.strip() and json.loads(text)
                except ValueError as error:
                    return f"{file} cannot be read: line {number} is no JSON: {error}"
    return None


@contextmanager
def naming_broken_line(files: Sequence[str]) -> Iterator[None]:
    """Turn an error of reading files, within a `with` block, into a `ValueError` that names the file and the line."""
    errors = import_optional("datasets").exceptions.DatasetsError
    try:
        yield
    except (ValueError, errors) as error:
        if not files:
            raise
        place = files[0] if len(files) == 1 else f"One of {', '.join(files)}"
        raise ValueError(find_broken_line(files) or f"{place} cannot be read: {error}") from error


def without_decoding(dataset: Any) -> Any:
    """Return a data set whose images come as bytes or paths, also in nested features, so that a bad one can be named.

    Args:
        dataset: data set of the `datasets` library; any other object is returned as it is.
    """
    features = copy.deepcopy(getattr(dataset, "features", None) or {})
    images = [leaf for leaf in _leaves(features) if _is_image(leaf) and leaf.decode]
    if not images:
        return dataset
    for leaf in images:
        leaf.decode = False
    if hasattr(dataset, "decode"):  # a stream, which may decode in threads; other features keep their decoding
        return dataset.decode(False).cast(features)
    dataset = copy.deepcopy(dataset)  # without its rows; `cast` would write those of nested features again
    dataset.info.features = features
    return dataset


def holds_images(feature: Any) -> bool:
    """Return whether a column holds images, alone or nested."""
    return any(map(_is_image, _leaves(feature)))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _leaves(feature: Any) -> Iterator[Any]:
    """Yield the features that hold no others."""
    if isinstance(feature, Mapping):
        for one in feature.values():
            yield from _leaves(one)
    elif hasattr(feature, "feature"):
        yield from _leaves(feature.feature)
    else:
        yield feature


class DatasetsSource:
    """Rows of a streaming data set of the `datasets` library, shard by shard.

    Args:
        dataset: `datasets.IterableDataset`.
        guard: rule for paths in rows; `None` takes rows as they are, for data that the user has built.
        files: paths of the files that are read, for messages.
    """

    def __init__(self, dataset: Any, guard: PathGuard | None = None, files: Sequence[str] = ()) -> None:
        self.dataset, self.guard, self.files = without_decoding(dataset), guard, files
        self.names: Sequence[str] = [f"shard {index}" for index in range(dataset.num_shards)]

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """Yield key and row, or key and error, from the `start`-th row of a shard on; see `ShardSource`.

        Raises:
            ValueError: naming the file and the line that cannot be read.
        """
        part = self.dataset.shard(num_shards=len(self.names), index=shard).skip(start)
        with naming_broken_line(_files_of_shard(self.files, shard, len(self.names))):
            for index, row in enumerate(part, start=start):
                try:
                    checked = self._check(row)
                except ValueError as error:
                    checked = error
                yield str(index), checked

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of all shards in order.

        Raises:
            ValueError: naming a path that may not be read, or the file and the line that cannot be read.
        """
        for shard in range(len(self.names)):
            for _, row in self.read(shard, start=0):
                if isinstance(row, Exception):
                    raise row
                yield row

    def _check(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return row if self.guard is None else self.guard.check_row(row)


class DatasetImages(SlicedSource):
    """Images of a map-style data set.

    Keys are those of the key column. Without one, they are the paths in the image column, where a path that appears
    again is the same image and is refined once. Where the data set holds the images themselves, keys are the numbers
    of the rows. In a row with several images each has its number after the key: `KEY#1`. A row without an image is left
    out.

    Args:
        dataset: `datasets.Dataset`, or the place from which it can be loaded.
        shard_size: int, rows in a shard.
        image, key: names of columns; the image column is found by its type or by its usual name.
        guard: rule for paths; by default they are taken as they are.
        limit: int, rows to take.

    Raises:
        ValueError: when there is no such column.
        DuplicateKeyError: when a key of the key column appears twice.
    """

    def __init__(
        self,
        dataset: Any,
        shard_size: int,
        image: str | None = None,
        key: str | None = None,
        guard: PathGuard = AS_GIVEN,
        limit: int | None = None,
    ) -> None:
        self.place = dataset if isinstance(dataset, DatasetPlace) else None
        loaded = dataset if self.place is None else self.place.load()
        self.image, self.key, self.guard = find_image_column(loaded, image, key), key, guard
        require_root(guard, loaded, (self.image,))
        self._dataset: Any = without_decoding(loaded)
        self._named_by = key or (self.image if _holds_text(loaded, self.image) else None)
        rows, self._names_sha256 = self._choose_rows(limit)
        super().__init__(rows, shard_size)
        if not self.total:
            raise ValueError(f"There is no row in {self.place.place if self.place else dataset}.")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self.place is None else {"_dataset": None})

    @property
    def dataset(self) -> Any:
        """Return the data set, its images not decoded."""
        if self._dataset is None and self.place is not None:
            self._dataset = without_decoding(self.place.load())
        return self._dataset

    def describe(self) -> dict[str, Any]:
        """Return the number of rows and a checksum: of their names, or of three images where rows have no names."""
        return {"kind": "dataset", "pictures": self.total, "keys_sha256": self._names_sha256 or self._hash_samples()}

    def items(self, shard: int) -> Iterator[Item]:
        """Yield the images of a shard's rows."""
        rows = self.members_of(shard)
        columns = [name for name in (self.image, self.key) if name is not None]
        selected = self.dataset.select_columns(columns).select(rows)
        for row, values in zip(rows, selected, strict=True):
            name = str(row) if self._named_by is None else str(values[self._named_by])
            yield from _items_of(name, values[self.image], self.guard, f"row {row}")

    def path_starts(self) -> Sequence[str]:
        """Return the folder of the paths in the rows."""
        return starts_of(self.guard.root)

    def _choose_rows(self, limit: int | None) -> tuple[Any, str | None]:
        """Return the rows to refine, and the SHA-256 of their names."""
        count = len(self._dataset) if limit is None else min(limit, len(self._dataset))
        if self._named_by is None:
            return range(count), None
        keep = np.array([name is not None for name in self._names(count)], bool)
        is_repeated = _find_repeated(self._names(count), count) & keep
        first: dict[str | None, int] = {}
        for row, name in enumerate(self._names(count) if is_repeated.any() else ()):
            if is_repeated[row] and first.setdefault(name, row) != row:
                if self.key is not None:
                    raise DuplicateKeyError(f"Key {name!r} is there twice: rows {first[name]} and {row}.")
                keep[row] = False
        rows = range(count) if keep.all() else np.flatnonzero(keep)
        names = zip(self._names(count), keep, strict=True)
        return rows, hash_names(as_key(str(name)) for name, is_kept in names if is_kept)

    def _names(self, count: int) -> Iterator[str | None]:
        """Yield the names of rows; `None` for a row that has no image to be named by."""
        column = self._dataset.select_columns([self._named_by]).with_format("arrow")
        for start in range(0, count, _ROWS):
            for value in column[start : min(start + _ROWS, count)][self._named_by].to_pylist():
                yield None if value is None and self.key is None else str(value)

    def _hash_samples(self) -> str:
        digest = hashlib.sha256()
        for row in (0, len(self.members) // 2, len(self.members) - 1):
            digest.update(repr(self.dataset[int(self.members[row])][self.image]).encode())
        return digest.hexdigest()


class StreamImages(Source):
    """Images of a data set that is read as a stream: one shard of the store for each of its files.

    Args:
        place: location of the data set.
        image, key, guard: as of `DatasetImages`. Without a key column, keys are `FILE-ROW`, both numbers.
        limit: int, rows to take, in one shard.
    """

    def __init__(
        self,
        place: DatasetPlace,
        image: str | None = None,
        key: str | None = None,
        guard: PathGuard = AS_GIVEN,
        limit: int | None = None,
    ) -> None:
        self.place, self.key, self.limit, self.guard = place, key, limit, guard
        stream = place.load()
        with naming_broken_line(place.files()):
            self.image = find_image_column(stream, image, key)
        require_root(guard, stream, (self.image,))
        self.shards = 1 if limit is not None else stream.num_shards
        splits = stream.info.splits or {}
        known = splits[place.split].num_examples if place.split in splits else None
        self.total = limit if limit is not None else known

    def describe(self) -> dict[str, Any]:
        """Return the name of the location, the number and size of its files, and the limit."""
        size = sum(os.path.getsize(file) for file in self.place.files() if "://" not in file)
        name = name_of_place(self.place.place)
        described = {**vars(self.place), "place": name, "files": self.shards, "bytes": size, "limit": self.limit}
        return {"kind": "stream", **described}

    def items(self, shard: int) -> Iterator[Item]:
        """Yield the images of one file's rows."""
        stream = without_decoding(self.place.load())
        part = stream.take(self.limit) if self.limit is not None else stream.shard(self.shards, shard)
        with naming_broken_line(_files_of_shard(self.place.files(), shard, self.shards)):
            for row, values in enumerate(part):
                name = f"{shard:06d}-{row:09d}" if self.key is None else str(values[self.key])
                yield from _items_of(name, values[self.image], self.guard, f"file {shard}, row {row}")

    def path_starts(self) -> Sequence[str]:
        """Return the folder of the paths in the rows."""
        return starts_of(self.guard.root)


def _files_of_shard(files: Sequence[str], shard: int, shards: int) -> Sequence[str]:
    """Return the file of a shard, or all files where they are not cut by files."""
    return [files[shard]] if len(files) == shards else files


def find_image_column(dataset: Any, image: str | None, key: str | None) -> str:
    """Return the name of the column that holds the images: the given one, one of that type, or one of a usual name.

    Raises:
        ValueError: naming the columns that there are.
    """
    features = dataset.features or {}
    columns = list(features or dataset.column_names or next(iter(dataset)))
    for name in (image, key):
        if name is not None and name not in columns:
            raise ValueError(f"There is no column {name!r}; the columns are {', '.join(map(repr, columns))}.")
    typed = [name for name, feature in features.items() if holds_images(feature)]
    usual = [name for name in IMAGE_COLUMNS if name in columns]
    if image is None and not typed and not usual:
        raise ValueError(f"Name the column with the images; the columns are {', '.join(map(repr, columns))}.")
    return image or [*typed, *usual][0]


def require_root(guard: PathGuard, dataset: Any, columns: tuple[str, ...]) -> None:
    """Refuse a data set whose image columns hold paths although it has no folder of its own, as one of the Hub.

    Raises:
        ValueError: naming the column.
    """
    for column in columns:
        if guard.root is None and guard.allowed is not None and not guard.fetch_urls and _holds_text(dataset, column):
            raise ValueError(f"The column {column!r} holds paths, not images: say in which folder they are (`root`).")


def _items_of(name: str, value: Any, guard: PathGuard, place: str) -> Iterator[Item]:
    """Yield the images of one row: one, a list of them, or none where the row is text alone."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    for number, one in enumerate(values):
        image, error = read_image_value(one, guard)
        yield Item(as_key(name if len(values) == 1 else f"{name}#{number}"), image, place, error)


def _holds_text(dataset: Any, column: str) -> bool:
    return getattr((dataset.features or {}).get(column), "dtype", None) in ("string", "large_string")


def _find_repeated(names: Iterator[str | None], count: int) -> np.ndarray:
    """Return (count,) bool: whether a name's hash appears again."""
    hashes = np.fromiter(map(hash, names), np.int64, count)
    values, counts = np.unique(hashes, return_counts=True)
    return np.isin(hashes, values[counts > 1])
