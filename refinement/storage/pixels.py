"""Resized pixels that a store may keep beside the objects, so that training decodes no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from PIL import Image


@dataclass(frozen=True)
class PixelFormat:
    """Size and resampling of the pixels in a store: those of the image processor that resized them.

    Attributes:
        height: int, pixels.
        width: int, pixels.
        resample: str, name of the resampling filter, such as `"BICUBIC"`.
        backend: str, library that resizes, `"pil"` or `"torchvision"`: their results differ by rounding.
    """

    height: int
    width: int
    resample: str
    backend: str

    @classmethod
    def of(cls, image_processor: Any) -> Self | None:
        """Return what an image processor makes of every image before normalization.

        Returns:
            `None` if its result is not of one size, or if it is not an image processor of this package.
        """
        if not hasattr(image_processor, "resized_size") or (size := image_processor.resized_size()) is None:
            return None
        height, width = size
        resample = image_processor.resample
        name = Image.Resampling(resample).name if isinstance(resample, int) else getattr(resample, "name", resample)
        return cls(height, width, str(name).upper(), image_processor.backend)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Self | None:
        """Return the format that `vars` of it describes, or `None` for `None`.

        Raises:
            TypeError: when there are other entries.
            ValueError: when a side is not a positive number of pixels.
        """
        if values is None:
            return None
        found = cls(**values)
        if not all(type(side) is int and 0 < side < 2**15 for side in (found.height, found.width)):
            raise ValueError(f"pixels of {found.height!r} x {found.width!r} are no size.")
        if not (isinstance(found.resample, str) and isinstance(found.backend, str)):
            raise TypeError(f"resample and backend are names, and not {found.resample!r} and {found.backend!r}.")
        return found

    @property
    def bytes(self) -> int:
        """Size of the pixels of one image."""
        return self.height * self.width * 3

    def __str__(self) -> str:
        return f"{self.width} x {self.height} pixels, {self.resample.lower()} ({self.backend})"
