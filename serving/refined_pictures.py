"""What the refiner saw in pictures, kept by their content."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from ..processing_lyrics import LyricsProcessor, VisualObjects
from .byte_cache import ByteCache, CacheStats
from .question import hash_objects

THRESHOLDS = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")

# Looks at a picture and its objects, and returns a remark for the user, or `None`.
NoticeCheck = Callable[[Image.Image, VisualObjects], str | None]


@dataclass(frozen=True)
class SeenPicture:
    """The objects of a picture.

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
    """Refines pictures, each content once; threads that ask for the same picture wait for one another.

    Args:
        processor: `LyricsProcessor` with a refiner, a store, or neither.
        max_bytes: largest size of the objects that are kept.
    """

    def __init__(self, processor: LyricsProcessor, max_bytes: int) -> None:
        self.processor = processor
        self._seen: ByteCache[Any, SeenPicture] = ByteCache(max_bytes)
        self._refining = threading.Lock()

    @property
    def can_refine(self) -> bool:
        """Whether there is a refiner or a store."""
        return self.processor.has_refiner or self.processor.store is not None

    def see(
        self,
        pictures: Sequence[Image.Image],
        keys: Sequence[bytes],
        *,
        tags: Sequence[str] | None = None,
        masks: bool = False,
        thresholds: Mapping[str, float] | None = None,
    ) -> list[SeenPicture]:
        """Return the objects of pictures.

        Args:
            pictures: sequence of RGB pictures.
            keys: sequence of the hashes of their pixels.
            tags: words to look for, instead of asking the tagger.
            masks: whether each object's mask is wanted too.
            thresholds: other values of `box_threshold`, `text_threshold`, `iou_threshold` or `max_regions`.
        """
        if not self.can_refine:
            return [SeenPicture(None, None)] * len(pictures)
        changed = tuple(sorted((thresholds or {}).items()))
        how = (None if tags is None else tuple(tags), masks, changed)
        wanted = [(key, how) for key in keys]
        found = {key: seen for key in dict.fromkeys(wanted) if (seen := self._seen.get(key)) is not None}
        if len(found) < len(set(wanted)):
            with self._refining:
                missing = {}
                for key, picture in zip(wanted, pictures, strict=True):
                    if key in found or key in missing:
                        continue
                    if (
                        seen := self._seen.get(key, is_counted=False)
                    ) is not None:  # another thread has refined it meanwhile
                        found[key] = seen
                    else:
                        missing[key] = picture
                refined = self._refine(list(missing.values()), tags, masks, dict(changed)) if missing else []
                for key, objects in zip(missing, refined, strict=True):
                    found[key] = seen = SeenPicture.of(objects)
                    self._seen.put(key, seen, _size_of(objects))
        return [found[key] for key in wanted]

    def _refine(
        self, pictures: list[Image.Image], tags: Sequence[str] | None, masks: bool, thresholds: dict[str, Any]
    ) -> list[VisualObjects]:
        options: dict[str, Any] = {"return_masks": masks, "progress": False}
        if tags is not None:
            options["tags"] = [list(tags)] * len(pictures)
        if not thresholds:
            return self.processor.refine(pictures, **options)
        if unknown := thresholds.keys() - set(THRESHOLDS):
            raise ValueError(f"Unknown thresholds {', '.join(sorted(unknown))}: known are {', '.join(THRESHOLDS)}.")
        refiner: Any = copy.copy(self.processor.refiner)  # it shares all weights, and has settings of its own
        refiner.config = copy.deepcopy(refiner.config)
        for name, value in thresholds.items():
            setattr(refiner.config, name, value)
        try:
            refiner.config.validate()
        except StrictDataclassError as error:
            raise ValueError(str(error.__cause__ or error)) from error
        return [VisualObjects(**vars(one)) for one in refiner.refine(pictures, **options)]

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()

    def stats(self) -> CacheStats:
        """Return numbers of pictures, bytes and look-ups."""
        return self._seen.stats()


def _size_of(objects: VisualObjects) -> int:
    arrays = [one for one in (objects.boxes, objects.scores, objects.region_features, objects.masks) if one is not None]
    return sum(one.nbytes for one in arrays) + 100 * (len(objects.labels) + len(objects.tags) + 1)
