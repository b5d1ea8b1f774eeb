"""Images that were prepared before: a file that was decoded once, and an image that was resized once, are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from .byte_cache import ByteCache
from .image_loading import PictureLike, check_size, load_picture, read_file
from .picture_hash import hash_picture
from .settings_hash import hash_settings

MAX_BYTES = 64 * 2**20  # the pixel values of about 110 images of 224 x 224
_BYTES_OF_ENTRY = 300  # keys and objects of Python


class OpenedPicture:
    """An image that is decoded when its pixels are needed.

    Args:
        read: function that returns the image, upright and in RGB.
        key: `hash_picture` of it, where that is known.
        size: its width and height, where they are known.
    """

    def __init__(
        self, read: Callable[[], Image.Image], key: bytes | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self._read = read
        self._known_key = key
        self._known_size = size

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenedPicture:
        """Return the image itself: Transformers copies the options of each call."""
        return self

    @cached_property
    def picture(self) -> Image.Image:
        """The image, upright and in RGB."""
        return self._read()

    @cached_property
    def key(self) -> bytes:
        """`hash_picture` of the image."""
        return hash_picture(self.picture) if self._known_key is None else self._known_key

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.picture.size if self._known_size is None else self._known_size


class PictureCache(ByteCache[Hashable, Any]):
    """Cache of hashes of images, by the content of their files, and of pixel values, by the hashes of images.

    A file is read and a PIL image is hashed each time, so that a changed one is noticed. A file that is known is not
    decoded, and an image that is known is not resized and normalized.

    Args:
        max_bytes: largest size of all values together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes)

    def open(self, source: PictureLike | OpenedPicture, max_pixels: int) -> OpenedPicture:
        """Open an image of any kind; one whose file is not known is decoded at once.

        Args:
            source: image of a kind that `load_picture` takes, or one that is open already.
            max_pixels: largest number of pixels; larger images are refused before they are decoded.

        Raises:
            ValueError: what `load_picture` raises.
        """
        if isinstance(source, OpenedPicture):
            return source
        content = read_file(source)
        if content is None:
            picture = load_picture(source, max_pixels)
            return OpenedPicture(lambda: picture)
        name = ("file", hashlib.sha256(content).digest())
        known = self.get(name)
        if known is not None:
            key, size = known
            check_size(size, max_pixels, source)
            return OpenedPicture(lambda: load_picture(content, max_pixels), key, size)
        picture = load_picture(content, max_pixels, name=source)
        opened = OpenedPicture(lambda: picture)
        self.put(name, (opened.key, picture.size), _BYTES_OF_ENTRY)
        return opened

    def preprocess(
        self, image_processor: Any, pictures: Sequence[OpenedPicture], options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return what an image processor returns; images that it has seen with the same settings are not resized.

        Args:
            image_processor: image processor of Transformers.
            pictures: sequence of images.
            options: mapping of its options in this call.
        """
        settings = hash_settings(vars(image_processor)), hash_settings(options)
        keys = [("values", type(image_processor), settings, picture.key) for picture in pictures]
        found = {key: values for key in dict.fromkeys(keys) if (values := self.get(key)) is not None}
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in found}
        if missing:
            fresh = image_processor([one.picture for one in missing.values()], **options)
            if not _is_one_array_each(fresh, len(missing)):
                is_all = len(missing) == len(pictures)
                return fresh if is_all else image_processor([one.picture for one in pictures], **options)
            for key, values in zip(missing, fresh["pixel_values"], strict=True):
                found[key] = np.array(values if isinstance(values, np.ndarray) else values.numpy())
                self.put(key, found[key], found[key].nbytes + _BYTES_OF_ENTRY)
        return {"pixel_values": [found[key].copy() for key in keys]}


def _is_one_array_each(prepared: Mapping[str, Any], count: int) -> bool:
    """Return whether an image processor gave one array in main memory for each image, and nothing else."""
    values = prepared.get("pixel_values")
    if set(prepared) != {"pixel_values"} or values is None or len(values) != count:
        return False
    return all(getattr(getattr(one, "device", None), "type", "cpu") == "cpu" for one in values)
