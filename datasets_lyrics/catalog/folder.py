"""The folder of a data set: its files, its images, and what was left out while it was read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ExifTags, Image

from .omissions import Omissions, OmittedError

COCO_STARTS = ("", "images/", "coco/", "coco/images/")  # folders that hold train2014, val2014, train2017, ...

_COCO_2014, _COCO_2017 = ("train2014", "val2014", "test2015"), ("train2017", "val2017", "test2017")
_URL = re.compile("(?:https?|ftp|s3|data):", re.IGNORECASE)
_ON_ITS_SIDE = 5  # EXIF orientations from here on are turned by a quarter; images are loaded upright
_PLACES = 16_384  # images whose existence or size is remembered: consecutive records share images


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        files: file names below the root, or patterns; `|` stands between alternatives.
        size: int, number that the field reports, or `None`; its unit is that of the format.
        pictures: str, name of the images' folder, where it depends on the split.
        has_answers: bool, whether the answers are public; rows of other splits have none, and a server scores them.
    """

    files: tuple[str, ...]
    size: int | None = None
    pictures: str = ""
    has_answers: bool = True


class Folder:
    """A data set on disk, as its readers see it.

    Args:
        root: folder of the data set.
        split: the split to read.
        split_name: name of the split.
        named: name of the file in the root that is read in place of the split's first one.

    Attributes:
        named: path of that file, or `None`.
        omissions: things that were left out so far.
        records, unusable: ints, number of records so far, and of those without a row.

    Raises:
        FileNotFoundError: when the folder does not exist.
    """

    def __init__(self, root: str | os.PathLike, split: Split, split_name: str = "", named: str | None = None) -> None:
        self.root = Path(os.path.abspath(root))
        if not self.root.is_dir():
            raise FileNotFoundError(f"There is no folder {self.root}.")
        self.split, self.split_name = split, split_name
        self.named = None if named is None else self.root / named
        self.omissions, self.records, self.unusable = Omissions(), 0, 0
        self._last_start = ""
        self.exists = lru_cache(_PLACES)(self._exists)
        self.size = lru_cache(_PLACES)(self._size)

    def file(self, number: int = 0) -> Path:
        """Return the `number`-th file of the split; the first one may have been named."""
        if number == 0 and self.named is not None:
            return self.named
        return self.find(self.split.files[number])

    def require_folder(self) -> None:
        """Refuse a named file.

        Raises:
            ValueError: when one was named, although the data set has a file for each image.
        """
        if self.named is not None:
            raise ValueError(f"{self.named} is one file of many: name the folder of the data set.")

    def find(self, *names: str) -> Path:
        """Return a file, in the root or up to two folders below it.

        Args:
            names: names of which the first that exists is taken; wildcards are allowed, and `|` between alternatives.

        Raises:
            FileNotFoundError: naming what was looked for.
            ValueError: when several files have the name.
        """
        for name in names:
            for start in ("", "*/", "*/*/"):
                found = self._matching(*(f"{start}{pattern}" for pattern in name.split("|")))
                if len(found) > 1:
                    listed = ", ".join(str(path.relative_to(self.root)) for path in found[:4])
                    raise ValueError(f"{self.root} has several files {name}: {listed}. Name the one to read.")
                if found:
                    return found[0]
        raise FileNotFoundError(f"There is no {' or '.join(names)} in {self.root} or up to two folders below it.")

    def find_all(self, *patterns: str) -> list[Path]:
        """Return all files of the first pattern that any file below the root matches, sorted; or the named file.

        Raises:
            FileNotFoundError: when there is none.
        """
        if self.named is not None:
            return [self.named]
        for pattern in patterns:
            if found := self._matching(pattern):
                return found
        raise FileNotFoundError(f"There is no file {' or '.join(patterns)} in {self.root}.")

    def _matching(self, *patterns: str) -> list[Path]:
        """Return the files of patterns, without those that a system or a program hides beside them (`._a`, `~$a`)."""
        found = {path for pattern in patterns for path in self.root.glob(pattern)}
        return sorted(path for path in found if not path.name.startswith((".", "~$")) and path.is_file())

    def picture(self, names: str | Iterable[str], starts: Iterable[str] = ("", "images/")) -> str:
        """Return the path of an image relative to the root.

        Args:
            names: one or more names that the image may have.
            starts: folders below the root where it may lie, each with a slash at its end.

        Raises:
            OmittedError: when it is not there.
        """
        names = [self._below_root(name) for name in ([names] if isinstance(names, str) else names)]
        ordered = [self._last_start, *(start for start in starts if start != self._last_start)]
        for start in ordered:
            for name in names:
                if self.exists(start + name):
                    self._last_start = start
                    return start + name
        raise OmittedError("missing image", f"{names[0]:.200}")

    def _below_root(self, name: str) -> str:
        """Return a path relative to the root; an absolute one may lie below it."""
        if name.startswith(f"{self.root}{os.sep}"):
            name = name[len(str(self.root)) + 1 :]
        if _URL.match(name):
            raise OmittedError("a URL, not a file", f"{name:.80}: download the images first")
        if not name or os.path.isabs(name) or (".." in name and ".." in re.split(r"[/\\]", name)):
            raise OmittedError(
                "path outside the root", f"{name!r:.100} is not below {self.root}: name a root that holds it"
            )
        return name

    def _exists(self, path: str) -> bool:
        try:
            return (self.root / path).is_file()
        except OSError:  # a name that is too long
            return False

    def _size(self, path: str) -> tuple[int, int]:
        try:
            with Image.open(self.root / path) as picture:
                is_on_its_side = picture.getexif().get(ExifTags.Base.Orientation, 1) >= _ON_ITS_SIDE
                return (picture.height, picture.width) if is_on_its_side else picture.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OmittedError("unreadable image", f"{path}: {error}") from error


def picture_names(stem: str, extensions: Iterable[str] = ("jpg", "png", "jpeg", "webp", "bmp")) -> Iterator[str]:
    """Yield the names that an image with a known stem may have."""
    return (f"{stem}.{extension}" for extension in extensions)


def coco_names(number: int | str, subset: str = "train2014") -> list[str]:
    """Return the names of a COCO image: as of 2014, for which the subset counts, and as of 2017.

    Raises:
        OmittedError: when the number is none.
    """
    if isinstance(number, bool) or not str(number).isdecimal():
        raise OmittedError("malformed record", f"{number!r:.40} is no number of a COCO image")
    digits = f"{int(number):012d}"
    subsets = [subset, *(one for one in (*_COCO_2014, *_COCO_2017) if one != subset)]
    names = [f"{one}/{digits}.jpg" if one in _COCO_2017 else f"{one}/COCO_{one}_{digits}.jpg" for one in subsets]
    return [*names, f"COCO_{subset}_{digits}.jpg", f"{digits}.jpg"]
