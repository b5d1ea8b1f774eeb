"""Contamination: images of evaluation splits that a training mixture must not contain.

An image is known again by its number in COCO or Visual Genome (files of 2014 and 2017 name the same images), by its
file, and, where asked for, by its perceptual hash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ...processing_lyrics.image_loading import load_picture
from ...utils.atomic_files import write_file
from ...utils.seeding import stable_hash
from ..catalog.checking import MAX_PIXELS
from ..catalog.reading import CatalogReader
from ..path_guard import PathGuard
from .perceptual_hash import near, perceptual_hash

_ROWS = 1000
_COCO = re.compile(r"(?:^|/)(?:COCO_(?:train|val|test)\d{4}_)?0*(\d{1,12})\.jpg$")
_COCO_NAME = re.compile(r"(?:^|/)(?:COCO_(?:train|val|test)\d{4}_)?\d{12}\.jpg$")
_VISUAL_GENOME = re.compile(r"(?:VG_100K(?:_2)?/|gqa/images/|v7w_)(\d{1,9})\.jpg$")


def picture_identity(path: str, source: str, identity: str = "") -> str:
    """Return the identity of an image across data sets, such as `coco/7`.

    Args:
        path: path of the image.
        source: place where the images of its data set come from; equal file names of one source are one image.
        identity: identity that the data set itself states.
    """
    if identity:
        return identity
    if match := _VISUAL_GENOME.search(path):
        return f"vg/{match.group(1)}"
    if _COCO_NAME.search(path) and (match := _COCO.search(path)):
        return f"coco/{match.group(1)}"
    return f"{source}/{path.rpartition('/')[2]}" if source else ""


class PictureKeys:
    """Keys of the images of a data set's rows.

    Args:
        reader: reader of the data set.
        rows: its stored rows.
    """

    def __init__(self, reader: CatalogReader, rows: Any) -> None:
        self.reader, self.rows = reader, rows

    def first_pictures(self) -> np.ndarray:
        """Return a hash of the images of each row, (N,) int64: rows with equal ones are about the same images."""
        hashes = (stable_hash(*(images or [f"row {number}"])) for number, (images, _) in enumerate(self._read()))
        return np.fromiter(hashes, np.int64, len(self.rows))

    def rows_and_keys(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the number of each row and the hashed keys of its images, by identity and by file."""
        root, source = self.reader.folder.root, self.reader.format.source
        for number, (images, identity) in enumerate(self._read()):
            keys = [stable_hash("file", os.path.join(root, path)) for path in images]
            for path in images:
                names = {picture_identity(path, source, identity), picture_identity(path, source)} - {""}
                keys += [stable_hash("picture", name) for name in names]
            yield number, keys

    def perceptual(self, guard: PathGuard) -> np.ndarray:
        """Return the perceptual hash of each row's first image, (N,) uint64; 0 where there is none.

        They are kept beside the stored rows, so that images are read once.
        """
        place = Path(self.rows.cache_files[0]["filename"]).with_name("perceptual.npy")
        with FileLock(f"{place.parent}.lock"):
            if not place.is_file():
                with write_file(place) as file:
                    np.save(file, self._compute_hashes(guard))
            return np.load(place)

    def _compute_hashes(self, guard: PathGuard) -> np.ndarray:
        known: dict[str, int] = {}
        hashes = np.zeros(len(self.rows), np.uint64)
        for number, (images, _) in enumerate(self._read()):
            for path in images[:1]:
                if path not in known:
                    known[path] = _hash_file(path, guard)
                hashes[number] = known[path]
        return hashes

    def _read(self) -> Iterator[tuple[list[str], str]]:
        for batch in self.rows.select_columns(["images", "identity"]).iter(_ROWS):
            yield from zip(batch["images"], batch["identity"], strict=True)


def _hash_file(path: str, guard: PathGuard) -> int:
    try:
        return perceptual_hash(load_picture(Path(guard.check_path(path)), MAX_PIXELS))
    except (ValueError, OSError):
        return 0  # training names the image when it reads it


class ExcludedPictures:
    """Images of evaluation splits.

    Args:
        splits: reader, stored rows and guard of each split.
        perceptual: bool, whether images are also compared by their perceptual hashes.
    """

    def __init__(self, splits: Iterable[tuple[CatalogReader, Any, PathGuard]], perceptual: bool = False) -> None:
        keys: set[int] = set()
        hashes = []
        for reader, rows, guard in splits:
            pictures = PictureKeys(reader, rows)
            for _, found in pictures.rows_and_keys():
                keys.update(found)
            if perceptual:
                hashes.append(pictures.perceptual(guard))
        self._keys, self.perceptual = keys, perceptual
        self._hashes = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def keep(self, pictures: PictureKeys, guard: PathGuard) -> np.ndarray:
        """Return which rows may be trained on, (N,) bool."""
        keep = np.ones(len(pictures.rows), bool)
        if self._keys:
            for number, found in pictures.rows_and_keys():
                keep[number] = self._keys.isdisjoint(found)
        if self.perceptual and len(self._hashes):
            keep &= ~near(pictures.perceptual(guard), self._hashes)
        return keep
