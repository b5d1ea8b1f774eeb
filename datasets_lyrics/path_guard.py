"""The one rule for paths and URLs in rows: a path stays below its root, and a URL is read only when asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

IMAGE_COLUMNS = ("image", "images")
IMAGE_BLOCKS = ("image", "image_url")  # types of message blocks that hold an image
IMAGE_KEYS = ("image", "path", "url", "image_url")  # where such a block, or a mapping in an image column, holds it

_URL = re.compile(r"[a-zA-Z][\w+.-]*://")
_HTTP = ("http://", "https://")
_LONGEST = 200  # characters of a path that a message quotes


class RequestedURL(str):
    """URL of an image that may be fetched, because it was asked for; any other string that is a URL is refused."""

    __slots__ = ()


@dataclass(frozen=True)
class PathGuard:
    """What the rows of one data set may read.

    Paths are resolved, links included, before they are compared with the allowed folders. `data:` URIs hold their
    image, so that they are always allowed.

    Attributes:
        root: folder, start of relative paths; `None` where relative paths mean nothing.
        allowed: folders, which no path leaves; `None` takes every path as it is, for data that the user has built.
        fetch_urls: bool, whether rows may name http(s) URLs.
        columns: names of the columns that hold images. Message blocks are found in every column.
    """

    root: Path | None = None
    allowed: tuple[Path, ...] | None = None
    fetch_urls: bool = False
    columns: tuple[str, ...] = IMAGE_COLUMNS

    @classmethod
    def below(cls, root: str | os.PathLike | None, *others: Path, fetch_urls: bool = False) -> Self:
        """Return a guard that allows `root`, where relative paths start, and other folders; `None` allows no root."""
        folders = () if root is None else (Path(os.path.abspath(root)),)
        return cls(next(iter(folders), None), (*folders, *others), fetch_urls)

    def check_path(self, path: str) -> str:
        """Return what may be read for a path or a URL: a file's real path, the URL, or the `data:` URI.

        Raises:
            ValueError: naming the path, when it leaves the allowed folders or is a URL that was not asked for.
        """
        if path.startswith("data:") or isinstance(path, RequestedURL):
            return path
        if self.fetch_urls and path.lower().startswith(_HTTP):
            return RequestedURL(path)
        name = repr(path if len(path) <= _LONGEST else f"{path[:_LONGEST]}...")
        if _URL.match(path):
            raise ValueError(
                f"{name} is a URL; images are not fetched: download them first, or ask for it (`fetch_urls`, http "
                "and https only)."
            )
        if self.allowed is None:
            return path
        if self.root is None and not os.path.isabs(path):
            raise ValueError(f"The image {name} has no folder: say where the images are (`image_root` or `root`).")
        real = Path(os.path.realpath(self.root / path if self.root else path))
        if not any(real.is_relative_to(os.path.realpath(folder)) for folder in self.allowed):
            raise ValueError(
                f"The image {name} lies outside {self.root or 'every folder that may be read'}, also where a link "
                "leads there. To allow it, name a folder that holds it (`image_root` or `root`)."
            )
        return os.fspath(real)

    def check_image(self, value: Any) -> Any:
        """Return the value of an image column with checked paths.

        Args:
            value: path, URL, bytes, PIL image, mapping such as `{"bytes", "path"}`, or a list of these. A mapping
                becomes its bytes or its path, and an empty string `None`.

        Raises:
            ValueError: naming a path that may not be read.
        """
        if isinstance(value, Mapping):
            found = (value[name] for name in ("bytes", *IMAGE_KEYS) if value.get(name))
            return self.check_image(next(found, None))
        if isinstance(value, list | tuple):
            return [self.check_image(one) for one in value]
        if isinstance(value, str | os.PathLike):
            path = os.fspath(value)
            return self.check_path(path) if path else None
        return value

    def check_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with checked paths, in its image columns and in the blocks of its messages.

        Raises:
            ValueError: naming a path that may not be read.
        """
        return {name: self._check_column(name, value) for name, value in row.items()}

    def check_batch(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Return rows as lists by column with checked paths; a transform of the `datasets` library."""
        return {name: [self._check_column(name, value) for value in values] for name, values in batch.items()}

    def _check_column(self, name: str, value: Any) -> Any:
        return self.check_image(value) if name in self.columns else self._check_blocks(value)

    def _check_blocks(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("type") in IMAGE_BLOCKS:
                held = (name for name in IMAGE_KEYS if value.get(name))
                return {**value, **{name: self.check_image(value[name]) for name in held}}
            return {name: self._check_blocks(one) for name, one in value.items()}
        if isinstance(value, list) and value and not isinstance(value[0], int | float):  # not through numbers
            return [self._check_blocks(one) for one in value]
        return value


AS_GIVEN = PathGuard()  # for data that the user has built, and for rows that were checked when they were read


def read_image_value(value: Any, guard: PathGuard) -> tuple[Any, str | None]:
    """Return the image of a row's value, a `Path`, bytes, URL or PIL image; or `None` and the reason why not."""
    try:
        value = guard.check_image(value)
    except ValueError as error:
        return None, str(error)
    if value is None:
        return None, "There is no image."
    is_path = isinstance(value, str) and not value.startswith("data:") and not _URL.match(value)
    return (Path(value) if is_path else value), None
