"""Refining of one shard: read its images, refine them, write the rows.

Threads read and write, so that while one group of images is refined, the next is read and the last one is written.
A shard depends on its number alone, and not on the engine or the worker that makes it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...datasets_lyrics.sources import Item, Source
from ...processing_lyrics import LyricsProcessor, VisualObjects
from ...processing_lyrics.picture_cache import OpenedPicture
from ..storage.errors import StaleStoreError
from ..storage.manifest import SHARDS
from ..storage.picture_hash import LoadedPicture, read_picture
from ..storage.rows import Row, RowFormat, prepare_objects
from ..storage.shards import ShardFacts, ShardWriter, shard_name, write_shard

logger = logging.get_logger(__name__)

# The refiner batches images of equal size. The more images are at hand, the fuller its batches: so many batches, or
# fewer if the images are large.
BATCHES_AT_ONCE = 8
PIXELS_AT_ONCE = 64_000_000
READERS = 4  # threads that decode

Loaded = tuple[Item, LoadedPicture | str]  # an image, or the reason why there is none
Progress = Callable[[int, Sequence[dict[str, str]]], None]  # number of processed images, and the failures among them


@dataclass
class RefiningTask:
    """Everything that a worker needs to make any shard of a store; pickles without weights.

    Attributes:
        source: source of the images.
        processor: processor with the refiner.
        folder: path of the store.
        rows: row format of the store.
        batch_size: int, number of images that the refiner processes at a time.
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
        """Refine the images of a shard, and write the shard and then its receipt.

        Args:
            number: int, number of the shard.
            progress: function, called after each group of images.

        Raises:
            StaleStoreError: when this worker's refiner is not the refiner of the store.
            OSError: when the shard cannot be written.
        """
        self._check_refiner()
        folder, failures = self.folder / SHARDS, list[dict[str, str]]()

        def end(writing: Future[list[dict[str, str]]], count: int) -> None:
            failed = writing.result()
            failures.extend(failed)
            progress(count, failed)

        with write_shard(folder / shard_name(number), self.rows) as shard, ThreadPoolExecutor(1) as writer:
            under_way: tuple[Future[list[dict[str, str]]], int] | None = None
            for group in _one_ahead(self.groups(self.source.items(number))):
                objects = self._refine_group(group)
                if under_way:  # no more than one group waits, however slow the disk is
                    end(*under_way)
                under_way = writer.submit(self._write, shard, group, objects), len(group)
            if under_way:
                end(*under_way)
        receipt = shard.receipt(failures)
        receipt.save(folder)
        return receipt.facts

    def _write(
        self, shard: ShardWriter, group: Sequence[Loaded], objects: Sequence[VisualObjects | str]
    ) -> list[dict[str, str]]:
        """Append the rows of a group to a shard, and return its failures."""
        failed = []
        for (item, loaded), seen in zip(group, objects, strict=True):
            row = self._row(item, loaded, seen)
            if isinstance(row, Row):
                shard.append(row)
            else:
                failed.append({"key": item.key, "place": self._shorten(item.place), "reason": self._shorten(row)})
        return failed

    def _check_refiner(self) -> None:
        """Compare the refiner with the store's, once per process: another machine may hold other weights."""
        if not self._checked and (found := self.processor.refiner.fingerprint()) != self.rows.fingerprint:
            raise StaleStoreError(
                f"The refiner of this worker has the fingerprint {found}, but {self.folder} was begun with "
                f"{self.rows.fingerprint}: its weights or its settings are others."
            )
        self._checked = True

    def _shorten(self, text: str) -> str:
        """Return a text without the folders of the source: stores of one source are equal on all machines."""
        for start in self.source.path_starts():
            text = text.replace(start, "")
        return text

    def refine(self, group: Sequence[Loaded]) -> list[Row | str]:
        """Return the row of each loaded image, or the reason why there is none."""
        return [self._row(*loaded, seen) for loaded, seen in zip(group, self._refine_group(group), strict=True)]

    def _refine_group(self, group: Sequence[Loaded]) -> list[VisualObjects | str]:
        """Return the objects of each loaded image, or the reason why there are none."""
        objects = iter(self._refine_pictures([_opened(one) for _, one in group if isinstance(one, LoadedPicture)]))
        return [next(objects) if isinstance(one, LoadedPicture) else one for _, one in group]

    def load(self, item: Item) -> Loaded:
        """Read an image; the reason takes its place if it cannot be read."""
        if item.image is None:
            return item, item.error or "There is no image."
        try:
            loaded = read_picture(item.image, self.processor.max_image_pixels)
            if self.rows.pixels is not None:
                loaded = replace(loaded, pixels=self.processor.image_processor.resize_only(loaded.picture))
            return item, loaded
        except (ValueError, OSError, MemoryError) as error:
            return item, str(error) or type(error).__name__

    def groups(self, items: Iterator[Item]) -> Iterator[list[Loaded]]:
        """Yield groups of images to be refined together; threads read ahead."""
        group, pixels = list[Loaded](), 0
        with ThreadPoolExecutor(READERS) as readers:
            for item, loaded in _map_ahead(readers, self.load, items, depth=max(READERS, self.batch_size)):
                group.append((item, loaded))
                if isinstance(loaded, LoadedPicture):
                    pixels += loaded.picture.width * loaded.picture.height
                if len(group) == self.batch_size * BATCHES_AT_ONCE or pixels >= PIXELS_AT_ONCE:
                    yield group
                    group, pixels = [], 0
        if group:
            yield group

    def _refine_pictures(self, pictures: list[OpenedPicture]) -> list[VisualObjects | str]:
        """Return the objects of each image; if the refiner fails, each image is tried alone."""
        options = {"batch_size": self.batch_size, "return_masks": self.rows.masks, "progress": False}
        try:
            return list(self.processor.refine(pictures, **options))
        except Exception as error:  # noqa: BLE001  (an image may cause any error)
            if len(pictures) == 1:
                return [f"The refiner failed: {type(error).__name__}: {error}"]
            logger.warning(f"The refiner failed on {len(pictures)} images, which are now tried one by one: {error}")
            return [result for picture in pictures for result in self._refine_pictures([picture])]

    def _row(self, item: Item, loaded: LoadedPicture | str, objects: VisualObjects | str) -> Row | str:
        if isinstance(loaded, str):
            return loaded
        if isinstance(objects, str):
            return objects
        try:
            objects = prepare_objects(objects, self.rows)
        except ValueError as error:
            return f"What the refiner saw cannot be stored: {error}"
        return Row(item.key, loaded.image_hash, loaded.file_sha256, *loaded.picture.size, objects, loaded.pixels)


def _opened(loaded: LoadedPicture) -> OpenedPicture:
    """Return an image with its hash, so that it is not hashed again."""
    return OpenedPicture(lambda: loaded.picture, loaded.image_hash)


def _one_ahead(groups: Iterator[list[Loaded]]) -> Iterator[list[Loaded]]:
    """Yield groups; while one is refined, a thread reads the next, so that a GPU never waits for files."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, groups, None)
        while (group := coming.result()) is not None:
            coming = reader.submit(next, groups, None)
            yield group


def _map_ahead(
    readers: ThreadPoolExecutor, load: Callable[[Item], Loaded], items: Iterator[Item], depth: int
) -> Iterator[Loaded]:
    """Yield `map(load, items)`, computed by threads at most `depth` items ahead."""
    waiting = deque(readers.submit(load, item) for item in itertools.islice(items, depth))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(readers.submit(load, item) for item in itertools.islice(items, 1))
