"""RefinementStore: visual objects of many images, found by key or by image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Self

from transformers.utils import logging

from ..datasets_lyrics.path_guard import AS_GIVEN, PathGuard
from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..utils.atomic_files import sha256_of, write_file, write_folder
from ..utils.optional_imports import import_optional
from .dataset_columns import Missing, ObjectsOfRow, attach_objects
from .storage.errors import StaleStoreError, StoreError
from .storage.finalize import FAILURES, FILES, IMAGES, INDEX, KEYS, finish_store
from .storage.index import Index, hash_key
from .storage.manifest import SHARDS, Manifest
from .storage.picture_hash import read_picture
from .storage.pixels import PixelFormat
from .storage.refiner_identity import RefinerIdentity
from .storage.rows import PIXEL_CHECKSUM, Row
from .storage.shards import Receipt, ShardFile, ShardReader, locate_row, shard_name

logger = logging.get_logger(__name__)

MAX_OPEN_SHARDS = 4096  # mapped at a time; Linux allows 65,530 mappings
MAX_PIXELS = 120_000_000  # of an image that is looked up
COMMON_LABELS = 20  # counted by `stats`


@dataclass(frozen=True)
class StoreStats:
    """Statistics of a store.

    Attributes:
        pictures: int, number of refined images.
        failures: int, number of images that could not be refined.
        bytes: int, size of shards and indices.
        objects: int, number of objects in all images.
        most_objects: int, largest number of objects in one image.
        pictures_without_objects: int, number of images.
        region_feature_type: str, `"mask"` or `"detection"`.
        region_feature_size: int, width of a region feature.
        pixels: str, size and resampling of the resized pixels, or `None` without them.
        labels: int, number of different labels.
        common_labels: number of objects by label, of the most common labels.
    """

    pictures: int
    failures: int
    bytes: int
    objects: int
    most_objects: int
    pictures_without_objects: int
    region_feature_type: str
    region_feature_size: int
    pixels: str | None
    labels: int
    common_labels: dict[str, int]

    @property
    def bytes_per_picture(self) -> float:
        """Mean size of an image in the store."""
        return self.bytes / max(1, self.pictures)

    @property
    def objects_per_picture(self) -> float:
        """Mean number of objects of an image."""
        return self.objects / max(1, self.pictures)


class RefinementStore:
    """Complete store of visual objects, mapped into memory. `RefinementStore.open` opens one.

    Attributes:
        path: path of its folder.
        manifest: description of the store.
        shards: files of the store, in the order of the source.
    """

    def __init__(self, path: str | os.PathLike, manifest: Manifest, allow: Collection[str] = ()) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self._allow = tuple(allow)
        self.shards = manifest.shard_files(self.path)
        self._ends = list(accumulate(shard.rows for shard in manifest.shards))
        self._open: dict[int, ShardReader] = {}
        self._lock = Lock()
        self._keys, self._images = (Index(self.path / INDEX, name) for name in (KEYS, IMAGES))
        self._files = None if self.pixels is None else Index(self.path / INDEX, FILES)

    @classmethod
    def open(cls, path: str | os.PathLike, allow: Collection[str] = ()) -> Self:
        """Open a store for reading. Nothing is written, and no row is read yet.

        Args:
            path: path of its folder.
            allow: names of settings in which the store's refiner may differ from a processor's, such as `["dtype"]`
                for a store that was filled in half precision.

        Raises:
            StoreError: naming the file, when the folder is no store, or the store is incomplete or damaged.
        """
        folder = Path(path)
        manifest = Manifest.load(folder)
        if not manifest.complete:
            raise StoreError(f"{folder} is not complete: refine its source again, and only what is missing is done.")
        return cls(folder, manifest, allow)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"RefinementStore({str(self.path)!r}, {len(self):,} images)"

    def __getstate__(self) -> dict[str, Any]:
        """Return the path and, for the caches of `datasets`, the checksums; nothing that is mapped."""
        return {"path": self.path, "allow": self._allow, "files": self.manifest.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], Manifest.load(state["path"]), state["allow"])

    @property
    def pixels(self) -> PixelFormat | None:
        """Size and resampling of the resized pixels that the store keeps; `None` if it keeps none."""
        return self.manifest.rows.pixels

    @property
    def failure_count(self) -> int:
        """Number of images that could not be refined."""
        return self.manifest.failure_count

    # ---------------------------------------------------------------- looking up

    def __contains__(self, key: str) -> bool:
        places = map(self._locate, self._keys.find(hash_key(key)))
        return any(shard.key(place) == key for shard, place in places)

    def __getitem__(self, key: str) -> VisualObjects:
        if (row := self.row(key)) is None:
            raise KeyError(f"{key!r} is not in {self.path}; see {FAILURES} there for what could not be refined.")
        return row.objects

    def keys(self) -> Iterator[str]:
        """Return all keys, in the order of the source."""
        return (shard.key(row) for shard in map(ShardFile.open, self.shards) for row in range(len(shard)))

    def lookup(self, picture: Any, return_masks: bool = False) -> VisualObjects | None:
        """Return the objects of an image, found by its pixels; `None` if it is not in the store.

        Args:
            picture: PIL image, `Path`, bytes of a file, array or tensor.
            return_masks: bool, whether to return the masks, if the store has them.

        Raises:
            ValueError: when the image cannot be read.
            StoreError: naming the file, when the row is damaged.
        """
        return self.find_image(read_picture(picture, MAX_PIXELS).image_hash, return_masks)

    def find_image(self, image_hash: bytes, return_masks: bool = False) -> VisualObjects | None:
        """Return the objects of an image by the hash that `hash_picture` returns; otherwise as `lookup`."""
        for index in self._images.find(int.from_bytes(image_hash[:8], "little")):
            shard, place = self._locate(index)
            if shard.image_hash(place) == image_hash:
                return shard.row(place, return_masks).objects
        return None

    def find_file(self, content: bytes, image_processor: Any) -> Row | None:
        """Return objects and resized pixels of an image, found by the checksum of its file; nothing is decoded.

        Args:
            content: bytes of the file.
            image_processor: image processor of the caller. The pixels are what its `resize_only` returns.

        Returns:
            The row, whose `pixels` may not be written to. `None` if the file is not in the store, or if the store keeps
            no pixels, or those of another size or resampling than the image processor's, of which a warning tells.

        Raises:
            StoreError: naming the file, when the row is damaged.
        """
        if self._files is None or not self._has_pixels_of(image_processor):
            return None
        file_sha256 = hashlib.sha256(content).digest()
        for index in self._files.find(int.from_bytes(file_sha256[:8], "little")):
            shard, place = self._locate(index)
            if shard.file_sha256(place) == file_sha256:
                return shard.row(place, pixels=True)
        return None

    def _has_pixels_of(self, image_processor: Any) -> bool:
        wanted = PixelFormat.of(image_processor)
        if wanted != self.pixels:
            logger.warning_once(
                f"{self.path} keeps {self.pixels}, but the image processor makes "
                f"{wanted or 'pictures of no fixed size'}: the kept pixels are not used, and files are decoded."
            )
        return wanted == self.pixels

    def row(self, key: str, picture: Any = None, return_masks: bool = False) -> Row | None:
        """Return the row of a key; `None` if the key is not in the store.

        Args:
            key: str, name of the image in the source.
            picture: image that has this name now, as in `lookup`, to compare with the refined one.
            return_masks: bool, whether to return the masks, if the store has them.

        Raises:
            StaleStoreError: when another image has this key now.
            StoreError: naming the file, when the row is damaged.
        """
        for index in self._keys.find(hash_key(key)):
            shard, place = self._locate(index)
            row = shard.row(place, return_masks)
            if row.key == key:
                if picture is not None:
                    self._check_picture(row, picture)
                return row
        return None

    def _check_picture(self, row: Row, picture: Any) -> None:
        now = read_picture(picture, MAX_PIXELS)
        # another version of Pillow may decode the same file to slightly different pixels
        if now.image_hash == row.image_hash or (now.file_sha256 is not None and now.file_sha256 == row.file_sha256):
            return
        then = f"{row.width} x {row.height} pixels, hash {row.image_hash.hex()[:12]}"
        since = f"{now.picture.width} x {now.picture.height} pixels, hash {now.image_hash.hex()[:12]}"
        raise StaleStoreError(
            f"{self.path}: what is stored for {row.key!r} is stale: it was refined as another image ({then}) than "
            f"the one that has this name now ({since})."
        )

    def _locate(self, index: int) -> tuple[ShardReader, int]:
        """Return the shard that holds a row of the store, and the row's place in it."""
        if index >= len(self):
            raise StoreError(f"{self.path / INDEX} is damaged: it names row {index} of {len(self)}.")
        number, place = locate_row(self._ends, index)
        if (shard := self._open.get(number)) is None:
            shard = self.shards[number].open()
            with self._lock:  # threads that share the store
                while len(self._open) >= MAX_OPEN_SHARDS:
                    self._open.pop(next(iter(self._open)))
                self._open[number] = shard
        return shard, place

    # ---------------------------------------------------------------- processors and data sets

    def check(self, processor: LyricsProcessor) -> str:
        """Return the fingerprint of the store's refiner, if the processor has the same one.

        `processor.store = store` calls this. A processor without a refiner, as one for a new first stage, takes any.

        Raises:
            StaleStoreError: saying what differs, when the processor has another refiner.
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

    def attach(
        self,
        dataset: Any,
        image: str | None = None,
        key: str | None = None,
        root: str | os.PathLike | None = None,
        check: bool = True,
        missing: Missing = "raise",
    ) -> Any:
        """Return a data set with a column `visual_objects`, which is read from the store when a row is.

        Args:
            dataset: data set of dictionaries: a `datasets.Dataset` or `IterableDataset`, which keeps its type, anything
                with `[index]` and `len`, or an iterable.
            image: str, column with the images (or paths, or lists of either); by default found by type or usual name.
            key: str, column with the keys of the store; by default images are found by their pixels.
            root: path, start of relative paths, which no path leaves; by default paths are taken as they are.
            check: bool, whether to read the image of a key and compare it with the refined one.
            missing: `"raise"`, or `"none"` for `None` if an image is not in the store.

        Returns:
            The data set with the column: `VisualObjects`, or a list of them in rows with a list of images.
        """
        guard = AS_GIVEN if root is None else PathGuard.below(root)
        return attach_objects(dataset, ObjectsOfRow(self, image, key, guard, check, missing))

    # ---------------------------------------------------------------- the whole store

    @property
    def bytes(self) -> int:
        """Size of shards and indices."""
        indices = (self.path / name for name in self.manifest.files if name.endswith(".npy"))
        return sum(facts.bytes for facts in self.manifest.shards) + sum(path.stat().st_size for path in indices)

    def verify(self) -> int:
        """Compare every file with its checksum. Returns the number of files.

        Raises:
            StoreError: naming every file that is damaged or missing.
        """
        files = [(shard.path, shard.facts.sha256) for shard in self.shards]
        files += [(self.path / name, sha256) for name, sha256 in self.manifest.files.items()]
        damaged = []
        for path, expected in logging.tqdm(files, desc="Verifying", unit="file", disable=len(files) < 2):
            try:
                if sha256_of(path) != expected:
                    damaged.append(f"{path} (its checksum is wrong)")
            except OSError as error:
                damaged.append(f"{path} ({error.strerror})")
        if damaged := damaged or self._damaged_receipts():
            raise StoreError(
                f"{len(damaged)} of {len(files)} files are damaged: {', '.join(damaged)}. Delete them and refine the "
                "same source again: only what is missing is made."
            )
        return len(files)

    def _damaged_receipts(self) -> list[str]:
        """Return the receipts that say something else than the manifest and the list of failures do."""
        listed = [json.loads(line) for line in (self.path / FAILURES).read_text("utf-8").splitlines()]
        damaged = []
        for shard in self.shards:
            receipt = Receipt.load(shard.folder, shard.facts.name)
            failures, listed = listed[: shard.facts.failures], listed[shard.facts.failures :]
            if receipt is None or receipt.facts != shard.facts or list(receipt.failures) != failures:
                damaged.append(f"{shard.path.with_suffix('.json')} (it does not fit the manifest)")
        return damaged

    def stats(self) -> StoreStats:
        """Return statistics of the store; region features are not read."""
        labels = Counter[str]()
        objects = most = without = 0
        shards = logging.tqdm(self.shards, desc="Counting", unit="shard", disable=len(self.shards) < 2)
        for batch in (batch for shard in shards for batch in shard.open().batches):
            counts = batch.object_counts()
            objects, most = objects + int(counts.sum()), max(most, int(counts.max(initial=0)))
            without += int((counts == 0).sum())
            labels.update(batch.labels())
        return StoreStats(
            pictures=len(self),
            failures=self.failure_count,
            bytes=self.bytes,
            objects=objects,
            most_objects=most,
            pictures_without_objects=without,
            region_feature_type=self.manifest.rows.region_feature_type,
            region_feature_size=self.manifest.rows.region_feature_size,
            pixels=None if self.pixels is None else str(self.pixels),
            labels=len(labels),
            common_labels=dict(labels.most_common(COMMON_LABELS)),
        )

    def export(self, out: str | os.PathLike) -> None:
        """Write the rows as Parquet, one file per shard, into a new folder; every row is checked.

        Raises:
            FileExistsError: when the folder exists and is not empty.
            StoreError: naming the file, when a row is damaged.
        """
        pa, pq = import_optional("pyarrow"), import_optional("pyarrow.parquet")
        size = self.manifest.rows.rows_per_batch
        with write_folder(out) as folder:
            for shard in logging.tqdm(self.shards, desc="Exporting", unit="shard"):
                shard.open().check()
                with pa.memory_map(os.fspath(shard.path)) as file:
                    table = pa.ipc.open_file(file).read_all()
                checksums = {"checksum", PIXEL_CHECKSUM} & {*table.column_names}
                with write_file((folder / shard.facts.name).with_suffix(".parquet")) as target:
                    pq.write_table(table.drop_columns(sorted(checksums)), target, row_group_size=size)

    @classmethod
    def merge(cls, stores: Sequence[Self | str | os.PathLike], out: str | os.PathLike) -> Self:
        """Join stores of one refiner into a new one; on one disk, they share their shards.

        Raises:
            StaleStoreError: saying what differs, when their refiners differ.
            DuplicateKeyError: naming both places of a key that two of them have.
            FileExistsError: when the folder exists and is not empty.
        """
        opened: list[Any] = [store if isinstance(store, RefinementStore) else cls.open(store) for store in stores]
        if not opened:
            raise ValueError("There is no store to merge.")
        first = opened[0].manifest
        for store in opened[1:]:
            store.manifest.refiner.require(first.refiner, f"the store {store.path}", f"the store {opened[0].path}")
            if store.manifest.rows != first.rows:
                raise StoreError(f"{store.path} has {store.manifest.rows}, but {opened[0].path} has {first.rows}.")
        shards: list[ShardFile] = [shard for store in opened for shard in store.shards]
        source = {"kind": "merged", "sources": [store.manifest.source for store in opened]}
        plan = {"shards": len(shards), "shard_size": None}
        with write_folder(out) as folder:
            (folder / SHARDS).mkdir()
            for number, shard in enumerate(logging.tqdm(shards, desc="Merging", unit="shard")):
                if (receipt := Receipt.load(shard.folder, shard.facts.name)) is None:
                    raise StoreError(f"{shard.path}, or the receipt beside it, is missing or cut.")
                _link_or_copy(shard.path, folder / SHARDS / shard_name(number))
                Receipt(replace(shard.facts, name=shard_name(number)), receipt.failures).save(folder / SHARDS)
            manifest = replace(first, source=source, plan=plan, shards=(), files={})
            finish_store(folder, manifest, origins=[shard.path for shard in shards])
        return cls.open(out)


def _link_or_copy(source: Path, target: Path) -> None:
    """Link a shard if possible: shards never change, so that two stores on one disk may share one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
