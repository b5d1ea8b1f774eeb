"""The model's view of an image: resized to a square, so that no border is lost, and normalised as CLIP's."""

from __future__ import annotations

from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import PILImageResampling
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


class _Settings:
    """What both backends do."""

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
    """`pixel_values` (N, 3, height, width) float32 from PIL pictures, without torchvision."""


class LyricsImageProcessorTorchvision(_Settings, TorchvisionBackend):
    """As `LyricsImageProcessorPil`, on tensors; used where torchvision is installed."""
