"""Models of Lyrics. Importing this package registers them with Transformers' auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from .configuration_lyrics import LyricsConfig, LyricsMQFormerConfig, LyricsRefinerConfig, RamConfig
from .modeling_lyrics import LyricsForConditionalGeneration, LyricsModel, LyricsPreTrainedModel
from .modeling_mqformer import LyricsMQFormerModel
from .modeling_ram import RamForImageTagging, RamModel
from .modeling_refiner import LyricsVisualRefiner, RefinedImage

for _config in (LyricsConfig, LyricsMQFormerConfig, LyricsRefinerConfig, RamConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
AutoModel.register(LyricsConfig, LyricsModel, exist_ok=True)
AutoModel.register(LyricsMQFormerConfig, LyricsMQFormerModel, exist_ok=True)
AutoModel.register(LyricsRefinerConfig, LyricsVisualRefiner, exist_ok=True)
AutoModel.register(RamConfig, RamModel, exist_ok=True)
AutoModelForImageTextToText.register(LyricsConfig, LyricsForConditionalGeneration, exist_ok=True)

from .. import processing_lyrics as _processing_lyrics  # noqa: E402, F401  (registers the processors)

__all__ = [
    "LyricsConfig",
    "LyricsForConditionalGeneration",
    "LyricsMQFormerConfig",
    "LyricsMQFormerModel",
    "LyricsModel",
    "LyricsPreTrainedModel",
    "LyricsRefinerConfig",
    "LyricsVisualRefiner",
    "RamConfig",
    "RamForImageTagging",
    "RamModel",
    "RefinedImage",
]
