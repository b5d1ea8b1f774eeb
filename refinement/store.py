"""RefinementStore: what the refiner saw in many pictures, to be looked up by key or by picture."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from transformers.utils import logging

from ..processing_lyrics import LyricsProcessor, VisualObjects
from .checking import StoreStats, stats, verify
from .copying import export_parquet, merge
from .dataset_columns import Missing, attach
from .storage.errors import StaleStoreError, StoreError
from .storage.finalize import FAILURES, IMAGES, INDEX, KEYS
from .storage.index import Index, hash_key
from .storage.manifest import Manifest
from .storage.picture_hash import read_picture
from .storage.refiner_identity import RefinerIdentity
from .storage.rows import Row
from .storage.shards import ShardFile, ShardReader

logger = logging.get_logger(__name__)

MAX_OPEN_SHARDS = 4096  # mapped at a time; Linux allows 65,530 mappings
MAX_PIXELS = 120_000_000  # of pictures that are given to be looked up


class RefinementStore:
    """A complete store, mapped into memory.

    Attributes:
        path: of its folder.
        manifest: what is known about it.
        shards: its files, in the order of the source.
    """

    def __init__(self, path: str | os.PathLike, manifest: Manifest, allow: Collection[str] = ()) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self._allow = tuple(allow)
        self.shards = manifest.shard_files(self.path)
        self._ends = list(accumulate(shard.rows for shard in manifest.shards))
        self._open: dict[int, ShardReader] = {}
        self._keys, self._images = (Index(self.path / INDEX, name) for name in (KEYS, IMAGES))

    @classmethod
    def open(cls, path: str | os.PathLike, allow: Collection[str] = ()) -> Self:
        """Open a store for reading. Nothing is written, and no row is read yet.

        Args:
            path: of its folder.
            allow: settings in which the refiner of the store may differ from that of a processor, such as `["dtype"]`
                for a store that was filled in half precision.

        Raises:
            StoreError: naming the file, when the store is not complete, damaged, or no store.
        """
        folder = Path(path)
        manifest = Manifest.load(folder)
        if not manifest.complete:
            raise StoreError(f"{folder} is not complete: refine its source again, and only what is missing is done.")
        return cls(folder, manifest, allow)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"RefinementStore({str(self.path)!r}, {len(self):,} pictures)"

    def __getstate__(self) -> dict[str, Any]:
        """Without what is mapped; with the manifest's files, so that caches of `datasets` know the store by content."""
        return {"path": self.path, "allow": self._allow, "files": self.manifest.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], Manifest.load(state["path"]), state["allow"])

    # ---------------------------------------------------------------- looking up

    def __contains__(self, key: str) -> bool:
        places = map(self._place, self._keys.find(hash_key(key)))
        return any(shard.key(place) == key for shard, place in places)

    def __getitem__(self, key: str) -> VisualObjects:
        if (row := self.row(key)) is None:
            raise KeyError(f"{key!r} is not in {self.path}; see {FAILURES} there for what could not be refined.")
        return row.objects

    def keys(self) -> Iterator[str]:
        """All keys, in the order of the source."""
        return (shard.key(row) for shard in map(ShardFile.open, self.shards) for row in range(len(shard)))

    def lookup(self, picture: Any, return_masks: bool = False) -> VisualObjects | None:
        """The objects of a picture, found by its pixels; `None` where it is not in the store.

        Args:
            picture: a PIL picture, a `Path`, the bytes of a file, an array or a tensor.
            return_masks: with the masks, if the store has them.

        Raises:
            ValueError: when the picture cannot be read.
            StoreError: naming the file, when what is stored is damaged.
        """
        return self.find_image(read_picture(picture, MAX_PIXELS).image_hash, return_masks)

    def find_image(self, image_hash: bytes, return_masks: bool = False) -> VisualObjects | None:
        """As `lookup`, for a picture that was hashed before (`hash_picture`)."""
        value = int.from_bytes(image_hash[:8], "little")
        for index in self._images.find(value):
            shard, place = self._place(index)
            if shard.image_hash(place) == image_hash:
                return shard.row(place, return_masks).objects
        return None

    def row(self, key: str, picture: Any = None, return_masks: bool = False) -> Row | None:
        """Everything that is stored under a key; `None` where it is not in the store.

        Args:
            key: of the picture, as its source names it.
            picture: the picture that has this name now, as in `lookup`; checked against what was refined.
            return_masks: with the masks, if the store has them.

        Raises:
            StaleStoreError: when it is another picture that has this key now.
            StoreError: naming the file, when what is stored is damaged.
        """
        for index in self._keys.find(hash_key(key)):
            shard, place = self._place(index)
            row = shard.row(place, return_masks)
            if row.key == key:
                if picture is not None:
                    self._check_picture(row, picture)
                return row
        return None

    def _check_picture(self, row: Row, picture: Any) -> None:
        now = read_picture(picture, MAX_PIXELS)
        # a file may decode to slightly other pixels with another version of Pillow, and is the same all the same
        if now.image_hash == row.image_hash or (now.file_sha256 is not None and now.file_sha256 == row.file_sha256):
            return
        then = f"{row.width} x {row.height} pixels, hash {row.image_hash.hex()[:12]}"
        since = f"{now.picture.width} x {now.picture.height} pixels, hash {now.image_hash.hex()[:12]}"
        raise StaleStoreError(
            f"{self.path}: what is stored for {row.key!r} is stale: it was refined as another picture ({then}) than "
            f"the one that has this name now ({since})."
        )

    # ---------------------------------------------------------------- belonging to a refiner

    def check(self, processor: LyricsProcessor) -> str:
        """Refuse a processor whose refiner would see something else; `processor.store = store` asks this.

        A processor that knows of no refiner, as one that is built for a new first stage, may have any.

        Returns:
            The fingerprint of the refiner.

        Raises:
            StaleStoreError: saying what differs.
        """
        width = self.manifest.rows.region_feature_size
        if width != processor.region_feature_size:
            raise StaleStoreError(
                f"{self.path} has region features of width {width}, but this processor's model takes "
                f"{processor.region_feature_size}."
            )
        if processor.refiner_config is not None or processor.refiner_fingerprint is not None:
            theirs = RefinerIdentity.of_processor(processor)
            self.manifest.refiner.require(theirs, f"the store {self.path}", "the processor", self._allow)
        return self.manifest.refiner.fingerprint

    # ---------------------------------------------------------------- data sets

    def attach(
        self,
        dataset: Any,
        image: str | None = None,
        key: str | None = None,
        root: str | os.PathLike | None = None,
        check: bool = True,
        missing: Missing = "raise",
    ) -> Any:
        """Give a data set a column `visual_objects`, which is read from the store when a row is.

        Args:
            dataset: of dictionaries: a `datasets.Dataset` or `IterableDataset`, which stays one, or anything with
                `[index]` and `len`, or an iterable.
            image: the column with the pictures (or paths, or lists of either); found by its type or its usual name.
            key: the column with the keys of the store; without one, pictures are found by their pixels.
            root: where relative paths begin, and which no path leaves; without it paths are taken as they are.
            check: that the picture of a key is the one that was refined, which takes reading it; `False` trusts keys.
            missing: `"raise"`, or `"none"` for `None` where a picture is not in the store.

        Returns:
            The data set with the column: `VisualObjects`, or a list of them in rows with a list of pictures.
        """
        return attach(self, dataset, image, key, root, check, missing)

    # ---------------------------------------------------------------- the whole store

    @property
    def bytes(self) -> int:
        """Of shards and indices."""
        indices = (self.path / name for name in self.manifest.files if name.endswith(".npy"))
        return sum(facts.bytes for facts in self.manifest.shards) + sum(path.stat().st_size for path in indices)

    def verify(self) -> int:
        """Read every file and compare it with its checksum. Returns how many files there are.

        Raises:
            StoreError: naming every file that is damaged or missing.
        """
        return verify(self)

    def stats(self) -> StoreStats:
        """Count what is in the store; region features are not read."""
        return stats(self)

    def export(self, out: str | os.PathLike) -> None:
        """Write the rows as Parquet, one file for each shard, into a new folder; every row is checked.

        Raises:
            FileExistsError: when there is something in the folder.
            StoreError: naming the file, when what is stored is damaged.
        """
        export_parquet(self, Path(out))

    @classmethod
    def merge(cls, stores: Sequence[Self | str | os.PathLike], out: str | os.PathLike) -> Self:
        """Join stores of one refiner into a new one; on one disk, they share their shards.

        Raises:
            StaleStoreError: when their refiners differ, with what differs.
            DuplicateKeyError: naming both places of a key that two of them have.
            FileExistsError: when there is something in the folder.
        """
        opened: list[Any] = [store if isinstance(store, RefinementStore) else cls.open(store) for store in stores]
        merge(opened, Path(out))
        return cls.open(out)

    # ---------------------------------------------------------------- rows

    def _place(self, index: int) -> tuple[ShardReader, int]:
        number = bisect_right(self._ends, index)
        if number >= len(self._ends):
            raise StoreError(f"{self.path / INDEX} is damaged: it names row {index} of {len(self)}.")
        return self._shard(number), index - (self._ends[number - 1] if number else 0)

    def _shard(self, number: int) -> ShardReader:
        if (shard := self._open.get(number)) is None:
            shard = self.shards[number].open()
            while len(self._open) >= MAX_OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            self._open[number] = shard
        return shard
