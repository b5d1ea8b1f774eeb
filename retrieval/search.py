"""PictureSearch: images found by a text or by another image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers.utils import logging

from ..datasets_lyrics.sources import FolderImages, Item, Source, as_key
from ..evaluation.metrics.retrieval import RERANKED
from ..processing_lyrics import VisualObjects
from ..processing_lyrics.image_loading import load_picture
from ..refinement.engines.task import RefiningTask
from ..refinement.storage.picture_hash import LoadedPicture
from ..refinement.storage.rows import Row, RowFormat
from ..utils.folder_lock import FolderLock
from .encoder import PairEncoder
from .index import EmbeddingIndex, EmbeddingIndexError, IndexedPicture
from .model_identity import describe_encoder
from .nearest import EmbeddingRows

logger = logging.get_logger(__name__)

COMPLETE = "complete"  # file in the index of images that do not change: all of them are in it


@dataclass(frozen=True)
class Hit:
    """Image that was found.

    Attributes:
        key: str, name of the image in its source; for a folder its path in it.
        similarity: float in [-1, 1], cosine of its embedding and that of the query.
        match: float in [0, 1], probability that image and text belong together, or `None` if it was not computed.
    """

    key: str
    similarity: float
    match: float | None = None


class PictureSearch:
    """Search in the images of a source, by embeddings that are kept in a folder.

    Args:
        source: images; of a folder, they may change between two calls of `update`.
        encoder: first stage.
        index: folder of the index, which is created if it is missing.

    Attributes:
        failures: dictionary of the key of each image that could not be read, and the reason.

    Examples:
        >>> import tempfile
        >>> from lyrics import SCENE_PICTURE
        >>> from lyrics.datasets_lyrics.sources import FolderImages
        >>> from lyrics.retrieval import PictureSearch, load_encoder
        >>> pictures = FolderImages(SCENE_PICTURE.parent, shard_size=64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     search = PictureSearch(pictures, load_encoder(), folder)
        ...     search.update(progress=False)
        ...     [hit.key for hit in search.by_text("a red ring", top=2)]
        2
        ['scene.png', 'example.png']
    """

    def __init__(self, source: Source, encoder: PairEncoder, index: str | os.PathLike[str]) -> None:
        self.source, self.encoder, self.path = source, encoder, Path(os.path.abspath(index))
        self.failures: dict[str, str] = {}
        self._index: Any = None
        self._row_of: dict[str, int] = {}
        self._keys: list[str] = []
        self._rows = EmbeddingRows(self.path, np.zeros((0, 0), np.float32))

    def update(self, progress: bool = True) -> int:
        """Embed the images that are new or have changed, and return their number.

        Images that are gone are no longer found. Another open search of the same index has to call `update`, too. The
        work of at most one file of the index is lost when it is interrupted: `batch_size` times eight images. An index
        that cannot be written is searched as it is, as long as no image is new.

        Args:
            progress: bool, whether a progress bar is shown.

        Raises:
            EmbeddingIndexError: the folder holds something else, an index of another model or of other images, or one
                that lacks images and cannot be written.
            FolderLockedError: another process updates the index.
            ValueError: no image could be read.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with FolderLock(self.path, "indexing") if self._is_writable() else nullcontext():
            index = self._open()
            self._check_same_folder(index)
            before, self.failures = len(index), {}
            current = index.latest() if self._is_complete() else self._embed_new(index, progress)
        if not current:
            key, reason = next(iter(self.failures.items()), ("", "there is none"))
            raise ValueError(f"None of the {len(self.failures)} images could be read; {key}: {reason}")
        self._index, self._row_of, self._keys = index, current, list(current)
        self._rows = EmbeddingRows(self.path, index.embeddings[list(current.values())])
        return len(index) - before

    def __len__(self) -> int:
        """Number of images that can be found."""
        return len(self._keys)

    def by_text(self, query: str, top: int = 5, rerank: int = RERANKED) -> list[Hit]:
        """Return the images that fit a text best.

        Args:
            query: text, such as a caption.
            top: int, number of images.
            rerank: int, number of the most similar images that are put in the order of similarity, divided by the
                temperature of contrast, plus the logit of the pair; 0 for the order of similarity alone. At least `top`
                where it is not 0. BLIP-2 does so without the temperature, where matching decides nearly alone.

        Raises:
            ValueError: the text is empty or has no word that the tokenizer knows, or a number is out of range.
        """
        self.encoder.check_query(query)
        self._check_numbers(top, rerank)
        embedding = self.encoder.embed_texts([query])[0]
        rerank = rerank and max(top, rerank)
        hits = self._nearest(embedding, max(top, rerank))
        if not rerank or not self.encoder.can_match:
            return hits[:top]
        return self._reranked(query, hits)[:top]

    def by_image(self, picture: Any, top: int = 5) -> list[Hit]:
        """Return the images that are most similar to an image, itself included if it is among them.

        Args:
            picture: image, path, array or bytes of a file.
            top: int, number of images.

        Raises:
            ValueError: the image cannot be read, or the number is out of range.
        """
        self._check_numbers(top, 0)
        pictures = self.encoder.processor.load_pictures(picture)
        return self._nearest(self.encoder.embed_images(pictures)[0], top)

    def load(self, key: str) -> Image.Image:
        """Return the image of a key, upright and RGB.

        Raises:
            ValueError: it cannot be read (any more).
        """
        limit = self.encoder.processor.max_image_pixels
        for item in self._items_near(key):
            if item.key == key and item.image is not None:
                return load_picture(item.image, limit)
        raise ValueError(f"There is no image {key!r} any more.")

    def _items_near(self, key: str) -> Iterator[Item]:
        """Yield items of the source among which is that of a key."""
        if isinstance(self.source, FolderImages):
            names = [key] if "\\" not in key else self.source.members  # bytes that UTF-8 lacks are escaped in a key
            yield from (self.source.item(name) for name in names if as_key(name) == key)
        else:
            yield from self.source.items(self._index.shards[self._row_of[key]])

    def objects(self, key: str) -> VisualObjects:
        """Return the objects of an indexed image."""
        return self._index.objects(self._row_of[key])

    def _open(self) -> EmbeddingIndex:
        described = describe_encoder(self.encoder)
        refiner, width = described["refiner"] or {}, self.encoder.processor.region_feature_size
        rows = RowFormat(refiner.get("fingerprint", ""), refiner.get("region_feature_type", "mask"), width)
        source = {"kind": "folder"} if self._is_folder else self.source.describe()
        size = self.encoder.model.config.projection_size
        return EmbeddingIndex.open(self.path, described, rows, size, source, self._is_writable())

    def _check_same_folder(self, index: EmbeddingIndex) -> None:
        """Refuse an index of another folder: one that has none of this folder's images.

        Raises:
            EmbeddingIndexError: it has others.
        """
        if isinstance(self.source, FolderImages) and len(index):
            keys = set(index.keys)
            if self.source.members and not any(as_key(name) in keys for name in self.source.members):
                raise EmbeddingIndexError(
                    f"{self.path} was made with other images: none of its {len(keys):,} is in {self.source.folder}. "
                    "Name another folder for the index, or remove this one."
                )

    @property
    def _is_folder(self) -> bool:
        """Whether images are files, with sizes and times by which changes are noticed; others stay as they are."""
        return isinstance(self.source, FolderImages)

    def _is_writable(self) -> bool:
        """Whether the index may grow; one on a read-only medium is searched as it is."""
        return os.access(self.path, os.W_OK)

    def _is_complete(self) -> bool:
        return not self._is_folder and (self.path / COMPLETE).exists()

    def _embed_new(self, index: EmbeddingIndex, progress: bool) -> dict[str, int]:
        """Embed the images that are new or have changed, and return the row of each image that can be found."""
        latest, signatures, writable = index.latest(), dict[str, str](), self._is_writable()
        total, silent = self.source.estimate_total(), not progress
        with logging.tqdm(total=total, desc="Indexing", unit="image", delay=1, disable=silent) as bar:

            def waiting() -> Iterator[Item]:
                for shard in range(self.source.shards):
                    for item in self.source.items(shard):
                        row, signature = latest.get(item.key), _signature(item)
                        signatures[item.key], shards[item.key] = signature, shard
                        if row is None or index.signatures[row] != signature:
                            if not writable:
                                raise EmbeddingIndexError(
                                    f"{self.path} cannot be written, and {item.key!r} is new or has changed. Copy the "
                                    "index to a folder that can be written."
                                )
                            yield item
                        else:
                            bar.update()

            shards = dict[str, int]()
            task = RefiningTask(self.source, self.encoder.processor, self.path, index.rows, self.encoder.batch_size)
            for group in task.groups(waiting()):
                index.append(list(self._embed(task, group, signatures, shards)))
                bar.update(len(group))
        if not self._is_folder and not self.failures and writable:
            (self.path / COMPLETE).touch()
        latest = index.latest()
        found = {key: latest[key] for key in signatures if key in latest}
        return {key: row for key, row in found.items() if index.signatures[row] == signatures[key]}

    def _embed(
        self, task: RefiningTask, group: Sequence[Any], signatures: dict[str, str], shards: dict[str, int]
    ) -> Iterator[IndexedPicture]:
        """Yield the rows of loaded images; `failures` keeps those that have none."""
        good: list[tuple[Row, Image.Image]] = []
        for (item, loaded), row in zip(group, self._refine(task, group), strict=True):
            if isinstance(row, Row) and isinstance(loaded, LoadedPicture):
                good.append((row, loaded.picture))
            else:
                self.failures[item.key] = str(row)
        objects = [row.objects for row, _ in good]
        vectors = self.encoder.embed_images([picture for _, picture in good], objects)
        for (row, _), vector in zip(good, vectors, strict=True):
            yield IndexedPicture(row, signatures[row.key], shards[row.key], vector)

    def _refine(self, task: RefiningTask, group: Sequence[Any]) -> Iterator[Row | str]:
        """Yield the row of each loaded image, or the reason why there is none."""
        if self.encoder.reads_objects:
            yield from task.refine(group)
            return
        for item, loaded in group:
            if not isinstance(loaded, LoadedPicture):
                yield loaded
                continue
            size = loaded.picture.size
            yield Row(item.key, loaded.image_hash, loaded.file_sha256, *size, VisualObjects())

    def _check_numbers(self, top: int, rerank: int) -> None:
        if self._index is None:
            raise ValueError("Call `update` first: there is no index of the images yet.")
        if not isinstance(top, int) or not isinstance(rerank, int) or top < 1 or rerank < 0:
            raise ValueError(f"top must be an integer of at least 1, and rerank of at least 0, got {top} and {rerank}.")

    def _nearest(self, embedding: npt.NDArray[np.float32], count: int) -> list[Hit]:
        rows = self._rows.nearest(embedding, count)
        return [Hit(self._keys[row], float(self._rows.embeddings[row] @ embedding)) for row in rows]

    def _reranked(self, query: str, hits: list[Hit]) -> list[Hit]:
        """Return hits in the order of both log odds, of contrast and of matching; unreadable images come last."""
        readable: list[tuple[Hit, Image.Image]] = []
        lost: list[Hit] = []
        for hit in hits:
            try:
                readable.append((hit, self.load(hit.key)))
            except (ValueError, OSError) as error:
                logger.warning(f"{hit.key} is in the index, but cannot be read any more: {error}")
                lost.append(hit)
        pictures = [picture for _, picture in readable]
        objects = [self.objects(hit.key) for hit, _ in readable]
        logits = self.encoder.match(pictures, objects, query)
        temperature = self.encoder.temperature
        odds = [hit.similarity / temperature + logit for (hit, _), logit in zip(readable, logits, strict=True)]
        order = sorted(zip(readable, logits.tolist(), odds, strict=True), key=lambda one: -one[2])
        return [Hit(hit.key, hit.similarity, 1 / (1 + float(np.exp(-logit)))) for (hit, _), logit, _ in order] + lost


def _signature(item: Item) -> str:
    """Return size and time of an item's file; empty for images that are no files of a folder."""
    if not isinstance(item.image, Path):
        return ""
    try:
        status = item.image.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"
