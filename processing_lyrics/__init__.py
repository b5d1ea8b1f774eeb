"""Processing for Lyrics. Importing this package registers the processors with Transformers' auto classes."""

from transformers import AutoImageProcessor, AutoProcessor

from ..modeling_lyrics.configuration_lyrics import LyricsConfig
from ..modeling_lyrics.configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .image_processing_lyrics import LyricsImageProcessorPil, LyricsImageProcessorTorchvision
from .processing_lyrics import LyricsProcessor, default_image_processor_class
from .spatial_text import GroundedObject, GroundedText, format_box, format_object, format_objects, parse_spatial_text
from .visual_objects import VisualObjects

LyricsImageProcessor = default_image_processor_class()

for _config in (LyricsConfig, LyricsPreTrainingConfig):
    AutoImageProcessor.register(
        _config,
        image_processor_classes={"pil": LyricsImageProcessorPil, "torchvision": LyricsImageProcessorTorchvision},
        exist_ok=True,
    )
    AutoProcessor.register(_config, LyricsProcessor, exist_ok=True)

__all__ = [
    "GroundedObject",
    "GroundedText",
    "LyricsImageProcessor",
    "LyricsImageProcessorPil",
    "LyricsImageProcessorTorchvision",
    "LyricsProcessor",
    "VisualObjects",
    "format_box",
    "format_object",
    "format_objects",
    "parse_spatial_text",
]
