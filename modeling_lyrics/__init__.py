"""Models of Lyrics. Importing this package registers them with Transformers' auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForPreTraining

from .attribution_lyrics import LyricsAttribution, attribute_answer
from .configuration_lyrics import LyricsConfig, LyricsRefinerConfig
from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .configuration_mqformer import LyricsMQFormerConfig
from .configuration_ram import RamConfig
from .modeling_lyrics import LyricsForConditionalGeneration, LyricsModel, LyricsPreTrainedModel
from .modeling_lyrics_pretraining import LyricsForPreTraining, LyricsPreTrainingOutput
from .modeling_mqformer import LyricsMQFormerModel
from .modeling_ram import RamForImageTagging, RamModel
from .modeling_refiner import LyricsVisualRefiner, RefinedImage
from .provenance_lyrics import describe_provenance

for _config in (LyricsConfig, LyricsMQFormerConfig, LyricsPreTrainingConfig, LyricsRefinerConfig, RamConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
AutoModel.register(LyricsConfig, LyricsModel, exist_ok=True)
AutoModel.register(LyricsMQFormerConfig, LyricsMQFormerModel, exist_ok=True)
AutoModel.register(LyricsRefinerConfig, LyricsVisualRefiner, exist_ok=True)
AutoModel.register(RamConfig, RamModel, exist_ok=True)
AutoModelForImageTextToText.register(LyricsConfig, LyricsForConditionalGeneration, exist_ok=True)
AutoModelForPreTraining.register(LyricsPreTrainingConfig, LyricsForPreTraining, exist_ok=True)

# The one import of the sibling folder: whoever imports the models can load their processors, too.
from .. import processing_lyrics as _processing_lyrics  # noqa: E402, F401  # pyright: ignore[reportUnusedImport]

__all__ = [
    "LyricsAttribution",
    "LyricsConfig",
    "LyricsForConditionalGeneration",
    "LyricsForPreTraining",
    "LyricsMQFormerConfig",
    "LyricsMQFormerModel",
    "LyricsModel",
    "LyricsPreTrainedModel",
    "LyricsPreTrainingConfig",
    "LyricsPreTrainingOutput",
    "LyricsRefinerConfig",
    "LyricsVisualRefiner",
    "RamConfig",
    "RamForImageTagging",
    "RamModel",
    "RefinedImage",
    "attribute_answer",
    "describe_provenance",
]
