"""What the refiner saw in images, kept by their content."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.picture_cache import OpenedPicture
from .question import hash_objects

MAX_TAGS = 100  # words that a refiner is asked for
MAX_TAG_CHARACTERS = 100
MAX_REGIONS = 300
THRESHOLDS = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")

# Looks at an image and its objects, and returns a remark for the user, or `None`.
NoticeCheck = Callable[[Image.Image, VisualObjects], str | None]


@dataclass(frozen=True)
class SeenPicture:
    """The objects of an image.

    Attributes:
        objects: `VisualObjects`, or `None` where there is no refiner.
        key: hash of the objects, or `None`.
    """

    objects: VisualObjects | None
    key: bytes | None

    @classmethod
    def of(cls, objects: VisualObjects | None) -> SeenPicture:
        """Return objects with their hash."""
        return cls(objects, None if objects is None else hash_objects(objects))


class RefinedPictures:
    """Refines images, each content once; threads that ask for the same image wait for one another.

    Args:
        processor: `LyricsProcessor` with a refiner, a store, or neither. What its refiner finds is kept in its
            `refined_cache`.
    """

    def __init__(self, processor: LyricsProcessor) -> None:
        self.processor = processor
        self._refining = threading.Lock()

    @property
    def can_refine(self) -> bool:
        """Whether there is a refiner or a store."""
        return self.processor.has_refiner or self.processor.store is not None

    def see(
        self,
        pictures: Sequence[Image.Image | OpenedPicture],
        *,
        tags: Sequence[str] | None = None,
        masks: bool = False,
        thresholds: Mapping[str, float] | None = None,
    ) -> list[SeenPicture]:
        """Return the objects of images.

        Args:
            pictures: sequence of images; opened ones are hashed once.
            tags: words to look for, instead of asking the tagger.
            masks: whether each object's mask is wanted too.
            thresholds: other values of `box_threshold`, `text_threshold`, `iou_threshold` or `max_regions`.
        """
        if not self.can_refine:
            return [SeenPicture(None, None)] * len(pictures)
        words = None if tags is None else [list(tags)] * len(pictures)
        options: dict[str, Any] = {"tags": words, "return_masks": masks, "progress": False}
        with self._refining:
            if thresholds:
                refiner = self._refiner_with(thresholds)
                found = self.processor.refined_cache.refine(refiner, self.processor.open_pictures(pictures), **options)
            else:
                found = self.processor.refine(pictures, **options)
        return [SeenPicture.of(objects) for objects in found]

    def _refiner_with(self, thresholds: Mapping[str, float]) -> Any:
        """Return a refiner that shares all weights, and has other thresholds."""
        if unknown := thresholds.keys() - set(THRESHOLDS):
            raise ValueError(f"Unknown thresholds {', '.join(sorted(unknown))}: known are {', '.join(THRESHOLDS)}.")
        refiner: Any = copy.copy(self.processor.refiner)
        refiner.config = copy.deepcopy(refiner.config)
        for name, value in thresholds.items():
            setattr(refiner.config, name, value)
        try:
            refiner.config.validate()
        except StrictDataclassError as error:
            raise ValueError(str(error.__cause__ or error)) from error
        return refiner
