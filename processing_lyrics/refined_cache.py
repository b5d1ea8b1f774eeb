"""What a refiner found in images, kept by their content: a later turn about an image does not refine it again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from itertools import chain
from operator import attrgetter
from typing import Any

import torch

from .byte_cache import ByteCache
from .picture_cache import OpenedPicture
from .protocols import Refiner
from .settings_hash import hash_settings
from .visual_objects import VisualObjects

MAX_BYTES = 64 * 2**20  # about 1,700 images with 36 objects each, without masks
_MEMBERS = attrgetter(*(one.name for one in fields(VisualObjects)))
_VERSION = attrgetter("_version")


class RefinedCache(ByteCache[Hashable, VisualObjects]):
    """Cache of visual objects. Weights and settings of the refiner, the image, tags and masks make the key.

    Args:
        max_bytes: largest size of all arrays together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes)

    def refine(
        self,
        refiner: Refiner,
        pictures: Sequence[OpenedPicture],
        tags: Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        return_masks: bool = False,
        progress: bool = False,
    ) -> list[VisualObjects]:
        """Return the objects of images; equal images are refined once.

        Args:
            refiner: refiner.
            pictures: sequence of images; those that are known are not decoded.
            tags: list of words to look for in each image, or `None` to ask the tagger.
            batch_size: number of images at a time.
            return_masks: bool, whether masks are returned.
            progress: bool, whether a progress bar is shown when there are several batches.
        """
        state = _state_of(refiner)
        words = [None] * len(pictures) if tags is None else [tuple(own) for own in tags]
        keys = [(state, picture.key, own) for picture, own in zip(pictures, words, strict=True)]
        found = {key: seen for key in dict.fromkeys(keys) if (seen := self._find(key, return_masks)) is not None}
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in found}
        places = sorted(missing.values())
        if places:
            refined = refiner.refine(
                [pictures[place].picture for place in places],
                tags=None if tags is None else [tags[place] for place in places],
                batch_size=batch_size,
                return_masks=return_masks,
                progress=progress,
            )
            for place, image in zip(places, refined, strict=True):
                found[keys[place]] = objects = VisualObjects(*_MEMBERS(image))
                self.put((keys[place], return_masks), _copy(objects), _size_of(objects))
        given: set[Hashable] = set()
        results = []
        for key in keys:  # no two results share their arrays, which a caller may change
            results.append(_copy(found[key]) if key in given else found[key])
            given.add(key)
        return results

    def _find(self, key: Hashable, masks: bool) -> VisualObjects | None:
        """Return a copy of kept objects; those with masks also serve where no masks are wanted."""
        with_masks = masks or self.get((key, True), is_counted=False) is not None
        seen = self.get((key, with_masks))
        if seen is None:
            return None
        return _copy(seen if masks else replace(seen, masks=None))


def _copy(objects: VisualObjects) -> VisualObjects:
    return replace(
        objects,
        labels=[*objects.labels],
        boxes=objects.boxes.copy(),
        scores=objects.scores.copy(),
        region_features=objects.region_features.copy(),
        masks=None if objects.masks is None else objects.masks.copy(),
        tags=[*objects.tags],
    )


def _size_of(objects: VisualObjects) -> int:
    arrays = [one for one in (objects.boxes, objects.scores, objects.region_features, objects.masks) if one is not None]
    return sum(one.nbytes for one in arrays) + 100 * (len(objects.labels) + len(objects.tags) + 1)


def _state_of(refiner: Any) -> Hashable:
    """Return what changes with the weights and the settings of a refiner.

    PyTorch counts the changes of a tensor. Changes that it is not told of (by `.data`) and hooks are not noticed.
    """
    tensors = _tensors_of(refiner) if isinstance(refiner, torch.nn.Module) else []
    places = tuple(map(torch.Tensor.data_ptr, tensors))
    try:
        versions = tuple(map(_VERSION, tensors))
    except RuntimeError:  # the changes of tensors that were made in inference mode are not counted
        versions = tuple([0 if tensor.is_inference() else tensor._version for tensor in tensors])
    settings = hash_settings(vars(refiner.config))
    return id(getattr(refiner, "tokenizer", None)), settings, hash((places, versions))


def _tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return parameters and buffers of a module, in a fraction of the time that its `parameters` and `buffers` take."""
    tensors: list[torch.Tensor | None] = []
    level: list[torch.nn.Module | None] = [module]
    while level:
        parts = [one.__dict__ for one in level if one is not None]
        for name in ("_parameters", "_buffers"):
            tensors += chain.from_iterable([part[name].values() for part in parts if part[name]])
        level = list(chain.from_iterable([part["_modules"].values() for part in parts if part["_modules"]]))
    return [tensor for tensor in tensors if tensor is not None]
