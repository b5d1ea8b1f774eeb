"""Models of Lyrics. Importing this package registers them with Transformers' auto classes."""

import sys
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForZeroShotImageClassification,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)

from .attribution_lyrics import LyricsAttribution, attribute_answer
from .configuration_lyrics import LyricsConfig, LyricsRefinerConfig
from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .configuration_mqformer import LyricsMQFormerConfig
from .configuration_ram import RamConfig
from .modeling_lyrics import LyricsForConditionalGeneration, LyricsModel
from .modeling_lyrics_base import LyricsPreTrainedModel
from .modeling_lyrics_pretraining import LyricsForPreTraining, LyricsPreTrainingOutput
from .modeling_lyrics_retrieval import LyricsForImageTextRetrieval, LyricsImageTextRetrievalOutput
from .modeling_mqformer import LyricsMQFormerModel
from .modeling_ram import RamForImageTagging, RamModel
from .modeling_refiner import LyricsVisualRefiner, RefinedImage
from .provenance_lyrics import describe_provenance
from .retrieval_lyrics import LyricsMaskedOutput, LyricsMatchingOutput

for _config in (LyricsConfig, LyricsMQFormerConfig, LyricsPreTrainingConfig, LyricsRefinerConfig, RamConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
AutoModel.register(LyricsConfig, LyricsModel, exist_ok=True)
AutoModel.register(LyricsMQFormerConfig, LyricsMQFormerModel, exist_ok=True)
AutoModel.register(LyricsRefinerConfig, LyricsVisualRefiner, exist_ok=True)
AutoModel.register(RamConfig, RamModel, exist_ok=True)
AutoModelForImageTextToText.register(LyricsConfig, LyricsForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(LyricsConfig, LyricsForConditionalGeneration, exist_ok=True)
AutoModelForPreTraining.register(LyricsPreTrainingConfig, LyricsForPreTraining, exist_ok=True)
AutoModelForZeroShotImageClassification.register(LyricsPreTrainingConfig, LyricsForImageTextRetrieval, exist_ok=True)
# `transformers serve` and pipelines know a model by its name in these tables, not by the registration, and the server
# takes its class from Transformers' own module. That module runs twice, so that there may be two of it.
_names: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
_names[LyricsConfig.model_type] = LyricsForConditionalGeneration.__name__
_names = MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
_names[LyricsPreTrainingConfig.model_type] = LyricsForImageTextRetrieval.__name__
for _module in (transformers, sys.modules["transformers"]):
    setattr(_module, LyricsForConditionalGeneration.__name__, LyricsForConditionalGeneration)

# The one import of the sibling folder: whoever imports the models can load their processors, too.
from .. import processing_lyrics as _processing_lyrics  # noqa: E402, F401  # pyright: ignore[reportUnusedImport]

__all__ = [
    "LyricsAttribution",
    "LyricsConfig",
    "LyricsForConditionalGeneration",
    "LyricsForImageTextRetrieval",
    "LyricsForPreTraining",
    "LyricsImageTextRetrievalOutput",
    "LyricsMQFormerConfig",
    "LyricsMQFormerModel",
    "LyricsMaskedOutput",
    "LyricsMatchingOutput",
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
