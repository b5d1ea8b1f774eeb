"""Check of a data set: every record is read, and every image is decoded once; faults are counted by kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...processing_lyrics.image_loading import load_picture
from ..path_guard import PathGuard
from .omissions import Omissions, OmittedError
from .reading import CatalogReader, Summary
from .row_store import guard_of

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
MIN_SIDE = 3  # pixels; Transformers cannot tell channels from sides below


@dataclass
class CheckResult:
    """What a check found.

    Attributes:
        summary: result of reading the files.
        pictures: int, number of different images.
        pixels: list of the smallest and the largest number of pixels.
        repeated_ids: int, number of rows whose id an earlier row has; some data sets have such.
        faults: faults of records and of images.
    """

    summary: Summary
    pictures: int
    pixels: tuple[int, int]
    repeated_ids: int
    faults: Omissions

    def as_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        return {
            "rows": self.summary.rows,
            "records": self.summary.records,
            "expected": self.summary.expected,
            "counted": self.summary.counted,
            "unit": self.summary.unit,
            "pictures": self.pictures,
            "pixels": list(self.pixels),
            "repeated_ids": self.repeated_ids,
            "faults": dict(self.faults.counts),
            "examples": dict(self.faults.examples),
        }


def check_data_set(
    reader: CatalogReader,
    image_root: str | Path | None = None,
    pictures: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> CheckResult:
    """Read every record and decode every image of a data set.

    Args:
        reader: reader of the data set.
        image_root: further folder that links of images may lead to.
        pictures: bool, whether images are decoded.
        progress: function, called for every row.

    Raises:
        FileNotFoundError, ValueError: as iterating the reader does.
    """
    guard = guard_of(reader, image_root)
    seen, ids = set[int](), set[int]()
    found: Omissions = Omissions()
    smallest, largest, rows = MAX_PIXELS, 0, 0
    for row in reader:
        progress()
        ids.add(hash(row.id))
        rows += 1
        for path in row.images:
            if (key := hash(path)) in seen:  # a number takes less memory than a path
                continue
            seen.add(key)
            if not pictures:
                continue
            try:
                width, height = _decode(path, guard)
            except OmittedError as error:
                found.add(path, error)
            else:
                smallest, largest = min(smallest, width * height), max(largest, width * height)
    assert reader.summary is not None
    faults = reader.summary.omissions
    for kind, examples in found.examples.items():
        faults.counts[kind] += found.counts[kind]
        faults.examples[kind] = [*faults.examples.get(kind, []), *examples]
    pixels = (smallest if largest else 0, largest)
    return CheckResult(reader.summary, len(seen), pixels, rows - len(ids), faults)


def measure_picture(source: Any) -> tuple[int, int]:
    """Return width and height in pixels of an image, which is decoded.

    Args:
        source: image, as `load_picture` takes it.

    Raises:
        OmittedError: training cannot use it.
    """
    try:
        size = load_picture(source, MAX_PIXELS).size
    except (ValueError, OSError, MemoryError) as error:
        raise OmittedError("unreadable image", str(error)) from error
    if min(size) < MIN_SIDE:
        raise OmittedError("tiny image", f"{size[0]} x {size[1]} pixels")
    return size


def _decode(path: str, guard: PathGuard) -> tuple[int, int]:
    try:
        place = guard.check_path(path)
    except ValueError as error:
        raise OmittedError("image outside the root", str(error)) from error
    return measure_picture(Path(place))
