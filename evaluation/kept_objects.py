"""Objects of images that an evaluation has refined, kept in files, so that no image is refined twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.picture_hash import hash_picture

_IN_MEMORY = 512  # images, whose questions often follow each other


class KeptObjects:
    """Finds the objects of images: in memory, in a store, in files of an earlier run, or by the refiner.

    Several processes may use one folder: a file appears when it is complete, and the same image has the same objects.

    Args:
        processor: processor with a refiner, a store, or neither.
        folder: folder of the files, created when the first one is written; `None` keeps objects in memory alone.
    """

    def __init__(self, processor: LyricsProcessor, folder: str | os.PathLike[str] | None = None) -> None:
        self.processor = processor
        self._folder = None if folder is None else Path(folder)
        self._recent: dict[bytes, VisualObjects] = {}

    @property
    def can_see(self) -> bool:
        """Whether there is a refiner or a store."""
        return self.processor.has_refiner or self.processor.store is not None

    def see(self, pictures: Sequence[Image.Image]) -> list[VisualObjects | None]:
        """Return the objects of RGB images; `None` for each where there is neither a refiner nor a store."""
        if not self.can_see:
            return [None] * len(pictures)
        keys = [hash_picture(picture) for picture in pictures]
        found: dict[bytes, VisualObjects] = {}
        missing: dict[bytes, Image.Image] = {}
        for key, picture in zip(keys, pictures, strict=True):
            if key in found or key in missing:
                continue
            objects = self._look_up(key, picture)
            if objects is None:
                missing[key] = picture
            else:
                found[key] = objects
        if missing:
            refined = self.processor.refine(list(missing.values()), progress=False)
            for key, objects in zip(missing, refined, strict=True):
                found[key] = objects
                self._keep(key, objects)
        for key, objects in found.items():
            self._recent.pop(key, None)
            self._recent[key] = objects
        while len(self._recent) > _IN_MEMORY:
            del self._recent[next(iter(self._recent))]
        return [found[key] for key in keys]

    def _look_up(self, key: bytes, picture: Image.Image) -> VisualObjects | None:
        if (recent := self._recent.get(key)) is not None:
            return recent
        if self.processor.store is not None and (stored := self.processor.store.lookup(picture)) is not None:
            return stored
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return VisualObjects.load(path)
        except ValueError:  # damaged: refined again
            return None

    def _keep(self, key: bytes, objects: VisualObjects) -> None:
        if (path := self._path(key)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            objects.save(path)

    def _path(self, key: bytes) -> Path | None:
        name = key.hex()
        return None if self._folder is None else self._folder / name[:2] / f"{name[2:]}.safetensors"
