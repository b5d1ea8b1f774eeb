"""Image processors of the model: an image is resized to a square, without a crop, and normalized as for CLIP."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


class _Settings:
    """Settings of both backends."""

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 224, "width": 224}
    default_to_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    model_input_names = ["pixel_values"]

    def resized_size(self) -> tuple[int, int] | None:
        """Return height and width of every result; `None` if they depend on the image, or with a crop or padding."""
        settings: Any = self
        size = get_size_dict(settings.size, default_to_square=settings.default_to_square)
        height, width = size.get("height"), size.get("width")
        if not (settings.do_resize and height and width) or settings.do_center_crop or settings.do_pad:
            return None
        return height, width

    def resize_only(self, picture: Image.Image) -> np.ndarray:
        """Return the resized pixels of an RGB image before normalization, uint8 of shape (height, width, 3).

        With `normalize_only` they become the `pixel_values` that the image processor returns, bit by bit.
        """
        processor: Any = self
        pixels = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(np.asarray(pixels).transpose(1, 2, 0), np.uint8)

    def normalize_only(self, pixels: np.ndarray) -> np.ndarray:
        """Return the `pixel_values` of pixels that `resize_only` returned, float32 of shape (3, height, width)."""
        processor: Any = self
        inputs = processor(pixels, do_resize=False, input_data_format="channels_last", return_tensors="np")
        return np.asarray(inputs["pixel_values"][0])


class LyricsImageProcessorPil(_Settings, PilBackend):
    """Image processor on PIL images, which does not need torchvision.

    It returns `pixel_values`, a float32 tensor of shape (N, 3, height, width).
    """

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Convert images to `pixel_values`.

        A PIL image is resized before Transformers converts it to an array. The pixels are the same, in a fraction of
        the time and memory.

        Args:
            images: image, list of images, or list of lists.
            args, kwargs: Transformers' arguments.
        """
        settings: dict[str, Any] = {"do_resize": self.do_resize, "size": self.size, "resample": self.resample}
        settings |= {name: value for name, value in kwargs.items() if value is not None}
        size = settings["size"]
        if not isinstance(size, SizeDict):
            size = SizeDict(**get_size_dict(size, default_to_square=self.default_to_square))
        if settings["do_resize"] and size.height and size.width:
            images = _resize(images, (size.width, size.height), settings["resample"])
        return super().preprocess(images, *args, **kwargs)

    def resize_only(self, picture: Image.Image) -> np.ndarray:
        """Return the resized pixels of an image before normalization; without Transformers' copies where it can."""
        if picture.mode != "RGB" or (size := self.resized_size()) is None:
            return super().resize_only(picture)
        height, width = size
        return np.array(picture.resize((width, height), Image.Resampling(self.resample)))

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> BatchFeature:
        """Rescale and normalize bytes by a table of their 256 values, and anything else as Transformers does.

        Args:
            images: list of arrays of shape (channels, H, W).
            args, kwargs: Transformers' arguments.
        """
        is_bytes = all(image.dtype == np.uint8 and len(image) == 3 for image in images)
        if not is_bytes or kwargs["do_pad"] or not (kwargs["do_rescale"] or kwargs["do_normalize"]):
            return super()._preprocess(images, *args, **kwargs)
        names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        table = _table_of_bytes(*(kwargs[name] for name in names))
        wanted, sizes = kwargs["return_tensors"], {"do_rescale": False, "do_normalize": False, "return_tensors": None}
        resized = super()._preprocess(images, *args, **kwargs | sizes)["pixel_values"]
        values = [_look_up(table, image) for image in resized]
        return BatchFeature(data={"pixel_values": values}, tensor_type=wanted)


class LyricsImageProcessorTorchvision(_Settings, TorchvisionBackend):
    """Image processor on tensors, for use with torchvision; its output is that of `LyricsImageProcessorPil`."""


@lru_cache(maxsize=8)
def _table_of_bytes(do_rescale: bool, rescale_factor: float, do_normalize: bool, mean: Any, std: Any) -> np.ndarray:
    """Return what Transformers makes of each byte in each channel, (3, 256)."""
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    backend = PilBackend()
    if do_rescale:
        values = backend.rescale(values, rescale_factor)
    if do_normalize:
        values = backend.normalize(values, mean, std)
    return np.ascontiguousarray(values[:, 0])


def _look_up(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the values of bytes of shape (3, H, W)."""
    values = np.empty(image.shape, table.dtype)
    for channel, row in enumerate(table):
        np.take(row, image[channel], out=values[channel], mode="clip")  # "clip", since only then nothing is buffered
    return values


def _resize(images: Any, size: tuple[int, int], resample: int) -> Any:
    """Return RGB images in any nesting resized; everything else unchanged."""
    if isinstance(images, list | tuple):
        return [_resize(image, size, resample) for image in images]
    if isinstance(images, Image.Image) and images.mode == "RGB":
        return images.resize(size, Image.Resampling(resample))
    return images
