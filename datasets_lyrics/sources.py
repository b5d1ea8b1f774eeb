"""Images for refinement: a source is cut into shards of images with names before any work begins.

A source travels to the workers, so that it pickles small. Its images of a shard depend on the shard's number alone.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .path_guard import PathGuard, read_image_value
from .toy_data import ShapeRows

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")


class DuplicateKeyError(ValueError):
    """A key appears twice; the message names both places."""


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        key: str, unique name in the source.
        image: `Path`, bytes of a file, URL or PIL image; `None` where there is none.
        place: str, where the image was found, for messages.
        error: reason why there is no image, or `None`.
    """

    key: str
    image: Any
    place: str
    error: str | None = None


class Source(ABC):
    """Images with names, in shards.

    Attributes:
        shards: int, number of shards.
        total: int, number of images, or `None` where it is unknown before they are read.
    """

    shards: int
    total: int | None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return a description in JSON types, equal for sources that have the same images under the same names."""

    def estimate_total(self) -> int | None:
        """Return about how many images there are, where that takes reading only a little."""
        return self.total

    @abstractmethod
    def items(self, shard: int) -> Iterator[Item]:
        """Yield the images of a shard, in order."""

    def path_starts(self) -> Sequence[str]:
        """Return starts of paths that a store leaves out of its list of failures, since they differ by machine."""
        return ()


class SlicedSource(Source):
    """A source whose images are known, so that every shard has `shard_size` of them.

    Args:
        members: sequence of names or numbers, one for each image.
        shard_size: int, images in a shard.
    """

    def __init__(self, members: Any, shard_size: int) -> None:
        self.members, self.shard_size = members, shard_size
        self.total, self.shards = len(members), -(-len(members) // shard_size)

    def members_of(self, shard: int) -> Any:
        """Return the names or numbers of a shard's images."""
        return self.members[shard * self.shard_size : (shard + 1) * self.shard_size]


class FolderImages(SlicedSource):
    """Images below a folder. Their keys are their paths in it, with slashes.

    Args:
        folder: folder, searched with its subfolders, but without following links to folders.
        shard_size: int, images in a shard.
        limit: int, number of images to take, from the first on.
        root: folder, which no link leaves; by default the searched one.

    Raises:
        ValueError: when there is no image.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        shard_size: int,
        limit: int | None = None,
        root: str | os.PathLike | None = None,
    ) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.guard = PathGuard.below(self.folder if root is None else root)
        names = sorted(_images_below(self.folder))[:limit]
        if not names:
            tars = any(name.endswith(".tar") for name in os.listdir(self.folder))
            hint = f" For tar shards, give {self.folder}/*.tar in quotes." if tars else ""
            endings = ", ".join(IMAGE_EXTENSIONS)
            raise ValueError(f"There is no image in {self.folder}: no file ends in {endings}.{hint}")
        super().__init__(names, shard_size)

    def describe(self) -> dict[str, Any]:
        """Return the number of images and the checksum of their keys."""
        return {"kind": "folder", "pictures": self.total, "keys_sha256": hash_names(map(as_key, self.members))}

    def items(self, shard: int) -> Iterator[Item]:
        """Yield the images of a shard; a link that leaves the root is an item with an error."""
        yield from map(self.item, self.members_of(shard))

    def item(self, name: str) -> Item:
        """Return the image of a path in the folder."""
        path = self.folder / name
        image, error = read_image_value(path, self.guard)
        return Item(as_key(name), image, str(path), error)

    def path_starts(self) -> Sequence[str]:
        """Return the folder and its root."""
        return starts_of(self.folder, self.guard.root)


class DrawnImages(SlicedSource):
    """Images that are drawn on the spot, such as `shapes:100`. Their keys are their numbers.

    Args:
        word: str, names the rows.
        rows: `ShapeRows`, with `image` or `images`.
        shard_size: int, images in a shard.
        limit: int, number of images to take.
    """

    def __init__(self, word: str, rows: ShapeRows, shard_size: int, limit: int | None = None) -> None:
        self.word, self.rows = word, rows
        super().__init__(range(len(rows))[:limit], shard_size)

    def describe(self) -> dict[str, Any]:
        """Return the word and the number of images."""
        return {"kind": "drawn", "word": self.word, "pictures": self.total}

    def items(self, shard: int) -> Iterator[Item]:
        """Draw the images of a shard."""
        for number in self.members_of(shard):
            row = self.rows[number]
            yield Item(str(number), row["image"] if "image" in row else row["images"][0], f"{self.word}, row {number}")


def starts_of(*folders: str | os.PathLike[str] | None) -> list[str]:
    """Return the starts of paths below folders, as they are named and as links lead to them, the longest first."""
    names = {os.path.join(one, "") for folder in folders if folder for one in (folder, os.path.realpath(folder))}
    return sorted((name for name in names if name.strip(os.sep)), key=len, reverse=True)


def as_key(name: str) -> str:
    """Return a name that UTF-8 can hold: other bytes, as in some files' names, are written with escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def hash_names(names: Iterable[str]) -> str:
    """Return the SHA-256 of names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def _images_below(folder: Path) -> Iterator[str]:
    endings = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if name.lower().endswith(endings) and not name.startswith("."):
                yield os.path.relpath(path, folder).replace(os.sep, "/")
