"""The part of a processor that sees: its refiner, store and cache, and what they find in images."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from PIL import Image

from .drawing import draw_attention, draw_objects
from .image_loading import PictureLike, flatten_pictures, load_picture
from .model_inputs import tags_of_each
from .picture_cache import OpenedPicture, PictureCache
from .protocols import CheckedObjectStore, HashedObjectStore, ObjectStore, Refiner, RefinerConfig
from .refined_cache import RefinedCache
from .refiner_handle import RefinerHandle
from .spatial_text import parse_spatial_text
from .visual_objects import VisualObjects


class PictureRefining:
    """Methods of `LyricsProcessor` that refine images.

    Attributes:
        max_image_pixels: largest number of pixels of an image.
        region_feature_size: width of the refiner's region features.
        refiner_fingerprint: hash of the refiner that was saved with the processor, or `None`.
    """

    max_image_pixels: int
    region_feature_size: int
    refiner_fingerprint: str | None
    _refiner: RefinerHandle
    _pictures: PictureCache

    @property
    def refiner(self) -> Refiner:
        """The visual refiner, loaded on first use; raises a `ValueError` where there is none."""
        return self._refiner.get()

    @property
    def has_refiner(self) -> bool:
        """Whether there is a refiner, loaded or not."""
        return self._refiner.exists

    @property
    def refiner_loaded(self) -> bool:
        """Whether the refiner's weights are in memory."""
        return self._refiner.loaded

    @property
    def refiner_config(self) -> RefinerConfig | None:
        """The refiner's configuration, read without its weights, also of a skipped one; `None` where there is none."""
        return self._refiner.config()

    @property
    def refined_cache(self) -> RefinedCache:
        """What the refiner found in the last images; `max_bytes` bounds it, `stats()` tells its size."""
        return self._refiner.cache

    @property
    def picture_cache(self) -> PictureCache:
        """Hashes and pixel values of the last images; `max_bytes` bounds it, `stats()` tells its size."""
        return self._pictures

    @property
    def store(self) -> ObjectStore | None:
        """Store of visual objects that is asked before the refiner, or `None`.

        A `CheckedObjectStore` is asked whether it belongs to this processor's refiner, when it is attached and when the
        refiner or its dtype changes. It raises a `ValueError` if it does not. Otherwise it returns the refiner's
        fingerprint, which a processor without a fingerprint takes over.
        """
        return self._refiner.store

    @store.setter
    def store(self, store: ObjectStore | None) -> None:
        if isinstance(store, CheckedObjectStore):
            fingerprint = store.check(self)
            self.refiner_fingerprint = self.refiner_fingerprint or fingerprint
        self._refiner.store = store

    def attach_refiner(self, refiner: Refiner) -> Self:
        """Use a refiner that is in memory, and return the processor.

        Args:
            refiner: `LyricsVisualRefiner`, or another refiner with its interface.

        Raises:
            ValueError: its region features have another width than the model expects.
        """
        self._require_width(refiner.config.region_feature_size)
        with self._refiner_changes():
            self._refiner.attach(refiner)
        return self

    def _require_width(self, width: int) -> None:
        if width != self.region_feature_size:
            raise ValueError(
                f"The refiner gives region features of width {width}, but this processor's model takes "
                f"{self.region_feature_size}."
            )

    def share_refiner_of(self, other: PictureRefining) -> Self:
        """Use the refiner of another processor, which is loaded when either first needs it, and return this processor.

        A first stage is saved without its refiner: that of a model made of the same refiner can then be used. The store
        belongs to the refiner, and is shared with it.

        Raises:
            ValueError: the other processor has no refiner, or another one than this processor was saved with, or both
                have a store.
        """
        theirs, config = other.refiner_fingerprint, other.refiner_config
        if not other.has_refiner or config is None:
            raise ValueError("The processor whose refiner is to be shared has none.")
        self._require_width(config.region_feature_size)
        if self.refiner_fingerprint not in (None, theirs):
            raise ValueError(
                f"The refiner has the fingerprint {theirs}; this processor's model was trained with the one of "
                f"fingerprint {self.refiner_fingerprint}. Name the model that has its refiner."
            )
        if self.store is not None and other.store not in (None, self.store):
            raise ValueError("Both processors have a store, and a shared refiner asks one: set one `store` to None.")
        store, self.store = self.store, None
        self._refiner = other._refiner
        if store is not None:
            self.store = store
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Set the device and the dtype of the refiner, now or when it is loaded, and return the processor."""
        with self._refiner_changes():
            self._refiner.to(device, dtype)
        return self

    @contextmanager
    def _refiner_changes(self) -> Generator[None]:
        """Ask the store again, since the refiner changes; where it could not be changed, the store stays."""
        store, self.store = self.store, None
        try:
            yield
        except BaseException:
            self._refiner.store = store
            raise
        self.store = store

    def load_pictures(self, images: Any) -> list[Image.Image]:
        """Return images, paths, URLs, arrays or tensors in any nesting as a flat list of upright RGB images."""
        return [load_picture(image, self.max_image_pixels) for image in flatten_pictures(images)]

    def open_pictures(self, images: Any) -> list[OpenedPicture]:
        """Return images in any nesting as a flat list; a file that `picture_cache` knows is decoded when needed."""
        return [self._pictures.open(image, self.max_image_pixels) for image in flatten_pictures(images)]

    def refine(
        self,
        images: PictureLike | Sequence[PictureLike],
        tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        return_masks: bool = False,
        progress: bool = True,
    ) -> list[VisualObjects]:
        """Find the objects of images; those that are in the store or in `refined_cache` are not computed again.

        Args:
            images: image or sequence of images, also of `open_pictures`.
            tags: list of words to look for in every image, or one list for each image; the tagger is not asked.
            batch_size: number of images at a time.
            return_masks: bool, whether each object's mask is returned, at the image's size.
            progress: bool, whether a progress bar is shown when there are several batches.

        Returns:
            One `VisualObjects` per image, in their order.

        Raises:
            ValueError: an image cannot be read, `tags` are not words for these images, or `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        pictures = self.open_pictures(images)
        wanted = None if tags is None else tags_of_each(tags, len(pictures))
        found: dict[int, Any] = {}
        if self.store is not None and tags is None and not return_masks:
            found = {index: _look_up(self.store, picture) for index, picture in enumerate(pictures)}
        missing = [index for index in range(len(pictures)) if found.get(index) is None]
        if missing and found and not self.has_refiner:
            raise ValueError(f"Images {missing} are not in the store, and this processor has no refiner.")
        if missing:
            refined = self.refined_cache.refine(
                self.refiner,
                [pictures[index] for index in missing],
                wanted,
                batch_size=batch_size,
                return_masks=return_masks,
                progress=progress,
            )
            found.update(zip(missing, refined, strict=True))
        return [found[index] for index in range(len(pictures))]

    def looks_familiar(self, visual_objects: VisualObjects) -> bool:
        """Return whether an image looks like those that the detector was trained on, as its scores tell.

        A detector that has seen one kind of image alone invents objects in others, with low scores. The answers about
        such an image mean little.

        Args:
            visual_objects: objects that the refiner found in the image by its own tags.

        Returns:
            Whether their mean score is at least the refiner's `familiar_score`; `False` if nothing was found. Always
            `True` if the refiner has no such score.
        """
        config = self.refiner_config
        smallest = None if config is None else config.familiar_score
        return smallest is None or (len(visual_objects) > 0 and float(visual_objects.scores.mean()) >= smallest)

    def visualize(
        self, image: PictureLike, visual_objects: VisualObjects, answer: str = "", **options: Any
    ) -> Image.Image:
        """Draw objects over their image, or the boxes of an answer.

        Args:
            image: PIL image, path, URL, bytes, array or tensor.
            visual_objects: objects of the image.
            answer: answer about the image. If it has boxes, these are drawn, above thin boxes of the objects.
            options: `masks`, `labels` and `scores`, which are `True` by default, and `font`, a font file for the
                labels; by default one that has their characters is looked for.
        """
        picture = load_picture(image, self.max_image_pixels)
        return draw_objects(picture, visual_objects, parse_spatial_text(answer).objects, **options)

    def visualize_attention(
        self,
        image: PictureLike,
        visual_objects: VisualObjects,
        weights: Sequence[float],
        font: str | os.PathLike[str] | None = None,
    ) -> Image.Image:
        """Draw an image in which objects stand out by weights, such as `LyricsAttribution.region_weights()[0]`.

        Args:
            image: PIL image, path, URL, bytes, array or tensor.
            visual_objects: objects of the image.
            weights: sequence of one non-negative weight per object.
            font: font file for the labels; by default one that has their characters is looked for.
        """
        return draw_attention(load_picture(image, self.max_image_pixels), visual_objects, weights, font)


def _look_up(store: ObjectStore, picture: OpenedPicture) -> VisualObjects | None:
    return store.find_image(picture.key) if isinstance(store, HashedObjectStore) else store.lookup(picture.picture)
