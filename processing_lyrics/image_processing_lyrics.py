"""Image processors of the model: an image is resized to a square, without a crop, and normalized as for CLIP."""

from __future__ import annotations

from typing import Any

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


class LyricsImageProcessorPil(_Settings, PilBackend):
    """Image processor on PIL pictures, which does not need torchvision.

    It returns `pixel_values`, a float32 tensor of shape (N, 3, height, width).
    """

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Convert images to `pixel_values`.

        A PIL picture is resized before Transformers converts it to an array. The pixels are the same, in a fraction of
        the time and memory.

        Args:
            images: picture, list of pictures, or list of lists.
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


class LyricsImageProcessorTorchvision(_Settings, TorchvisionBackend):
    """Image processor on tensors, for use with torchvision; its output is that of `LyricsImageProcessorPil`."""


def _resize(images: Any, size: tuple[int, int], resample: int) -> Any:
    """Return RGB pictures in any nesting resized; everything else unchanged."""
    if isinstance(images, list | tuple):
        return [_resize(image, size, resample) for image in images]
    if isinstance(images, Image.Image) and images.mode == "RGB":
        return images.resize(size, Image.Resampling(resample))
    return images
