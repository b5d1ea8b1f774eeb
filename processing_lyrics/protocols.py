"""Interfaces of the objects that a processor is given: a refiner, its configuration, and a store of visual objects.

The processor never imports the model's code, so that it names what it needs of a refiner here. Any class with these
members can be used; none has to inherit from a protocol.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from .visual_objects import VisualObjects


class RefinedObjects(Protocol):
    """The objects of one image, as a refiner returns them; the attributes are those of `VisualObjects`."""

    labels: list[str]
    boxes: torch.Tensor
    scores: torch.Tensor
    region_features: torch.Tensor
    masks: torch.Tensor | None
    tags: list[str]


class RefinerConfig(Protocol):
    """The settings of a refiner that others read. `LyricsRefinerConfig` has them.

    Attributes:
        fingerprint: hash of the saved weights and settings, or `None` where they were changed or never saved.
        familiar_score: mean score of detections from which on an image looks like those of the training, or `None`.
    """

    fingerprint: str | None
    familiar_score: float | int | None

    @property
    def dtype(self) -> torch.dtype | str | None:
        """Data type of the weights."""
        ...

    @property
    def tagger_config(self) -> Any:
        """Configuration of the tagger, or `None` for a refiner without one."""
        ...

    @property
    def region_feature_type(self) -> str:
        """`"mask"` or `"detection"`."""
        ...

    @property
    def region_feature_size(self) -> int:
        """Width of one region feature, box included."""
        ...

    @property
    def box_threshold(self) -> float:
        """Smallest score of a detection."""
        ...

    @property
    def text_threshold(self) -> float:
        """Smallest probability of a token that names a detection."""
        ...

    @property
    def iou_threshold(self) -> float:
        """Overlap above which the lower-scored of two boxes is dropped."""
        ...

    @property
    def max_regions(self) -> int:
        """Largest number of objects per image."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as a dictionary."""
        ...


class Refiner(Protocol):
    """A visual refiner: finds the objects of images. `LyricsVisualRefiner` is one."""

    @property
    def config(self) -> RefinerConfig:
        """The refiner's configuration."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        ...

    def refine(
        self,
        images: Sequence[Image.Image],
        tags: Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        return_masks: bool = False,
        progress: bool = True,
    ) -> Sequence[RefinedObjects]:
        """Find the objects of each image; `tags` names what to look for, instead of asking the tagger."""
        ...

    def preprocess(self, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the tensors that the refiner's forward pass takes."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of all weights and of every setting that changes a result."""
        ...

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Any:
        """Write weights, configuration and tokenizer to a folder."""
        ...

    @property
    def to(self) -> Callable[..., Any]:  # a method; Transformers' decorator hides that from type checkers
        """Move the weights to a device, or cast them; takes `device` and `dtype`."""
        ...


class ObjectStore(Protocol):
    """Stored visual objects, found by their image. `RefinementStore` is one."""

    def lookup(self, picture: Image.Image) -> VisualObjects | None:
        """Return the objects of an image, or `None` where they are not stored."""
        ...


@runtime_checkable
class HashedObjectStore(ObjectStore, Protocol):
    """Store that also finds an image by its hash, so that a known file need not be decoded."""

    def find_image(self, image_hash: bytes) -> VisualObjects | None:
        """Return the objects of the image with this `hash_picture`, or `None` where they are not stored."""
        ...


class StoredImage(Protocol):
    """Objects of an image, and its resized pixels: uint8 of shape (height, width, 3)."""

    @property
    def objects(self) -> VisualObjects:
        """Objects of the image."""
        ...

    @property
    def pixels(self) -> np.ndarray | None:
        """Resized pixels of the image, before normalization."""
        ...


@runtime_checkable
class PixelStore(ObjectStore, Protocol):
    """Store that also keeps resized pixels, and finds them by an image's file without decoding it."""

    def find_file(self, content: bytes, image_processor: Any) -> StoredImage | None:
        """Return what is stored of a file, with the pixels that the image processor would make of it, or `None`."""
        ...


@runtime_checkable
class CheckedObjectStore(ObjectStore, Protocol):
    """A store that belongs to one refiner, and can say whether that is a processor's refiner."""

    def check(self, processor: Any) -> str:
        """Return the fingerprint of the store's refiner; raise a `ValueError` where the processor has another one."""
        ...
