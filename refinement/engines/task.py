"""Refining one shard: read its pictures, look at them, write what was seen.

It is the same everywhere, and depends on the shard's number alone, so that a shard does not depend on who makes it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from transformers.utils import logging

from ...datasets_lyrics.sources import Item, Source
from ...processing_lyrics import LyricsProcessor, VisualObjects
from ..storage.errors import StaleStoreError
from ..storage.manifest import SHARDS
from ..storage.picture_hash import LoadedPicture, read_picture
from ..storage.rows import Row, RowFormat, prepare_objects
from ..storage.shards import ShardFacts, shard_name, write_shard

logger = logging.get_logger(__name__)

# Pictures of equal size are refined together, so the more are at hand, the fuller are the batches: so many, or fewer
# when they are large.
BATCHES_AT_ONCE = 8
PIXELS_AT_ONCE = 64_000_000
READERS = 4  # threads that decode

Loaded = tuple[Item, LoadedPicture | str]  # a picture, or why there is none
Progress = Callable[[int, Sequence[dict[str, str]]], None]  # pictures done, and those that failed among them


@dataclass
class RefiningTask:
    """All that a worker needs to make any shard of a store; pickles without weights.

    Attributes:
        source: of the pictures.
        processor: with the refiner.
        folder: of the store.
        rows: what the rows have in common.
        batch_size: pictures that the refiner sees at a time.
    """

    source: Source
    processor: LyricsProcessor
    folder: Path
    rows: RowFormat
    batch_size: int
    _checked: bool = field(default=False, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_checked": False}

    def make_shard(self, number: int, progress: Progress = lambda done, failures: None) -> ShardFacts:
        """Refine the pictures of a shard, and write the shard and then its receipt.

        Raises:
            StaleStoreError: when this worker's refiner is not the one that the store is of.
            OSError: when the shard cannot be written.
        """
        self._check_refiner()
        folder, failures = self.folder / SHARDS, list[dict[str, str]]()
        with write_shard(folder / shard_name(number), self.rows) as shard:
            for window in self._windows(self.source.items(number)):
                failed = []
                for (item, _), row in zip(window, self.refine(window), strict=True):
                    if isinstance(row, Row):
                        shard.append(row)
                    else:
                        failed.append({"key": item.key, "place": item.place, "reason": row})
                failures += failed
                progress(len(window), failed)
        receipt = shard.receipt(failures)
        receipt.save(folder)
        return receipt.facts

    def _check_refiner(self) -> None:
        """Once in every process: on another machine the same path may hold other weights."""
        if not self._checked and (found := self.processor.refiner.fingerprint()) != self.rows.fingerprint:
            raise StaleStoreError(
                f"The refiner of this worker has the fingerprint {found}, but {self.folder} was begun with "
                f"{self.rows.fingerprint}: its weights or its settings are others."
            )
        self._checked = True

    def refine(self, window: Sequence[Loaded]) -> list[Row | str]:
        """For each picture that was loaded its row, or why there is none."""
        pictures = [one.picture for _, one in window if isinstance(one, LoadedPicture)]
        seen = iter(self._look(pictures))
        return [self._row(item, one, next(seen)) if isinstance(one, LoadedPicture) else one for item, one in window]

    def load(self, item: Item) -> Loaded:
        """A picture, or why it cannot be read."""
        if item.image is None:
            return item, item.error or "There is no picture."
        try:
            return item, read_picture(item.image, self.processor.max_image_pixels)
        except (ValueError, OSError, MemoryError) as error:
            return item, str(error) or type(error).__name__

    def _windows(self, items: Iterator[Item]) -> Iterator[list[Loaded]]:
        """Pictures to be refined together, read ahead by threads."""
        window, pixels = list[Loaded](), 0
        with ThreadPoolExecutor(READERS) as readers:
            for item, loaded in _ahead(readers, self.load, items, depth=max(READERS, self.batch_size)):
                window.append((item, loaded))
                if isinstance(loaded, LoadedPicture):
                    pixels += loaded.picture.width * loaded.picture.height
                if len(window) == self.batch_size * BATCHES_AT_ONCE or pixels >= PIXELS_AT_ONCE:
                    yield window
                    window, pixels = [], 0
        if window:
            yield window

    def _look(self, pictures: list[Image.Image]) -> list[VisualObjects | str]:
        """What the refiner sees; where it fails, each picture is tried alone, so that the others are not lost."""
        try:
            return list(
                self.processor.refine(
                    pictures, batch_size=self.batch_size, return_masks=self.rows.masks, progress=False
                )
            )
        except Exception as error:  # noqa: BLE001  (whatever a picture makes it do)
            if len(pictures) == 1:
                return [f"The refiner failed: {type(error).__name__}: {error}"]
            logger.warning(f"The refiner failed on {len(pictures)} pictures, which are now tried one by one: {error}")
            return [result for picture in pictures for result in self._look([picture])]

    def _row(self, item: Item, loaded: LoadedPicture, objects: VisualObjects | str) -> Row | str:
        if isinstance(objects, str):
            return objects
        try:
            objects = prepare_objects(objects, self.rows)
        except ValueError as error:
            return f"What the refiner saw cannot be stored: {error}"
        size = loaded.picture.size
        return Row(item.key, loaded.image_hash, loaded.file_sha256, *size, objects)


def _ahead(
    readers: ThreadPoolExecutor, load: Callable[[Item], Loaded], items: Iterator[Item], depth: int
) -> Iterator[Loaded]:
    """`map(load, items)` in threads, at most `depth` items ahead."""
    waiting = deque(readers.submit(load, item) for item in itertools.islice(items, depth))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(readers.submit(load, item) for item in itertools.islice(items, 1))
