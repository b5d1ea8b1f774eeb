"""Where pictures come from: every source is cut into shards of pictures with names, before any work begins.

A source travels to the workers, so it pickles small; what it gives for a shard depends on the shard's number alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .webdataset import IMAGE_EXTENSIONS, TarShardError, count_samples, expand_shards, read_shard

_TARS_COUNTED = 8
_TAR = re.compile(r"\.(tar|tgz|tar\.\w+)\}?$")


@dataclass(frozen=True)
class Item:
    """One picture of a source.

    Attributes:
        key: its name, unique in the source.
        image: a `Path`, the bytes of a file, or a PIL picture; `None` where there is none.
        place: where it stands, for messages.
        error: why there is no picture.
    """

    key: str
    image: Any
    place: str
    error: str | None = None


class Source(ABC):
    """Pictures with names, in shards.

    Attributes:
        shards: how many there are.
        total: how many pictures, or `None` where nobody knows before they are read.
    """

    shards: int
    total: int | None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the source is, as JSON: equal for a source that has the same pictures under the same names."""

    def estimate_total(self) -> int | None:
        """How many pictures there are, about, where that takes reading a little."""
        return self.total

    @abstractmethod
    def items(self, shard: int) -> Iterator[Item]:
        """The pictures of a shard, in order."""


class FolderSource(Source):
    """The pictures below a folder; their keys are their paths in it, with slashes.

    Args:
        folder: searched with its subfolders, but without following links to folders.
        shard_size: pictures in a shard.
        limit: take so many pictures only.

    Raises:
        ValueError: when there is no picture.
    """

    def __init__(self, folder: str | os.PathLike, shard_size: int, limit: int | None = None) -> None:
        self.folder, self.shard_size = Path(os.path.abspath(folder)), shard_size
        self.names = sorted(_pictures_below(self.folder))[:limit]
        if not self.names:
            tars = any(name.endswith(".tar") for name in os.listdir(self.folder))
            hint = f" For tar shards, give {self.folder}/*.tar in quotes." if tars else ""
            endings = ", ".join(IMAGE_EXTENSIONS)
            raise ValueError(f"There is no picture in {self.folder}: no file ends in {endings}.{hint}")
        self.total, self.shards = len(self.names), -(-len(self.names) // shard_size)

    def describe(self) -> dict[str, Any]:
        """See `Source`."""
        return {"kind": "folder", "pictures": self.total, "keys_sha256": hash_names(map(as_key, self.names))}

    def items(self, shard: int) -> Iterator[Item]:
        """See `Source`."""
        for name in self.names[shard * self.shard_size : (shard + 1) * self.shard_size]:
            path = self.folder / name
            yield Item(as_key(name), path, str(path))


class TarSource(Source):
    """WebDataset tar shards, one shard of the store for each; keys are `SHARD/KEY`.

    SHARD is the tar file's path without its ending, below the last folder of `pattern` that has neither braces nor
    wildcards.

    Args:
        pattern: path or URL, with braces and wildcards; see `expand_shards`.
        extensions: of the picture in a sample, the first one that is there.
        limit: take so many samples only; so many headers are then read at once.
    """

    def __init__(self, pattern: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS, limit: int | None = None) -> None:
        pattern = pattern if "://" in pattern else os.path.abspath(pattern)
        self.pattern, self.extensions = pattern, extensions
        self.paths = expand_shards(pattern)
        self.total, self.last = None, None
        if limit is not None:
            self.total, self.paths, self.last = _first_samples(self.paths, limit)
        self.shards = len(self.paths)
        root = re.split(r"[{*?\[]", pattern)[0]
        self.root = root[: root.rfind("/") + 1]

    def describe(self) -> dict[str, Any]:
        """See `Source`."""
        names = [as_key(self._name(path)) for path in self.paths]
        return {"kind": "tar", "tars": len(names), "names_sha256": hash_names(names), "limit": self.total}

    def estimate_total(self) -> int | None:
        """See `Source`: the headers of a few tar files, spread over all, stand for the others."""
        if self.total is not None:
            return self.total
        paths = self.paths[:: max(1, len(self.paths) // _TARS_COUNTED)]
        return round(sum(map(count_samples, paths)) / len(paths) * len(self.paths))

    def items(self, shard: int) -> Iterator[Item]:
        """See `Source`. What is wrong with a sample, or with the shard, is an item with an error."""
        path, errors = self.paths[shard], list[TarShardError]()
        name, stop = self._name(path), self.last if shard == self.shards - 1 else None
        for sample in read_shard(path, require=[self.extensions], on_error=errors.append):
            yield from self._failed(name, errors)
            if stop is not None and sample.index >= stop:
                return
            yield Item(as_key(f"{name}/{sample.key}"), sample.first_of(self.extensions), f"{path}: {sample.key}")
        yield from self._failed(name, errors)

    def _failed(self, name: str, errors: list[TarShardError]) -> Iterator[Item]:
        for error in errors:
            key = name if error.key is None else f"{name}/{error.key}"
            yield Item(as_key(key), None, error.shard, str(error))
        errors.clear()

    def _name(self, path: str) -> str:
        return _TAR.sub("", path.removeprefix(self.root))


def is_tar_pattern(place: str) -> bool:
    """Whether a path or URL names tar shards."""
    return _TAR.search(place) is not None


def as_key(name: str) -> str:
    """A name that UTF-8 can hold: anything else in it, as in some files' names, is written with escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def hash_names(names: Iterable[str]) -> str:
    """The SHA-256 of names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def _pictures_below(folder: Path) -> Iterator[str]:
    endings = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if name.lower().endswith(endings) and not name.startswith("."):
                yield os.path.relpath(path, folder).replace(os.sep, "/")


def _first_samples(paths: list[str], limit: int) -> tuple[int, list[str], int | None]:
    """How many samples the first shards hold, at most `limit`; those shards; and where the last of them stops."""
    count = 0
    for number, path in enumerate(paths):
        samples = count_samples(path)
        if count + samples >= limit:
            return limit, paths[: number + 1], limit - count
        count += samples
    return count, paths, None
