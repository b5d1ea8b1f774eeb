"""What a recipe of the first stage is made of: its model, its processor and its data, built from plain settings."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from ..conversion import load_mqformer
from ..modeling_lyrics import LyricsForPreTraining, LyricsMQFormerConfig
from ..modeling_lyrics.modeling_lyrics import build_vision_model
from ..processing_lyrics import LyricsImageProcessor, LyricsProcessor
from .pretraining_collator import add_stage_1_tokens

logger = logging.get_logger(__name__)

SPELLING = "spelling"


@dataclass
class PretrainingModelArguments:
    """Where the model of the first stage starts."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "Go on from this first-stage checkpoint, in our layout or the published one."}
    )
    vision_model: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of the vision encoder; else a new one of vision_config."}
    )
    vision_config: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Configuration of a new vision encoder, with its model_type."}
    )
    mqformer: str | None = field(
        default=None,
        metadata={"help": "Start the MQ-Former from this BERT, BLIP-2 or InstructBLIP; else it is new."},
    )
    mqformer_config: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "Fields of the MQ-Former's configuration that are not the paper's."}
    )
    tokenizer: str = field(
        default="bert-base-uncased",
        metadata={"help": "Directory or Hub id of the MQ-Former's tokenizer; 'spelling' for a small one of letters."},
    )
    processor: str | None = field(
        default=None, metadata={"help": "A checkpoint whose processor and refiner find objects that are not stored."}
    )
    itc_weight: float = field(default=1.0, metadata={"help": "Weight of image-text contrast; 0 leaves it out."})
    itm_weight: float = field(default=1.0, metadata={"help": "Weight of image-text matching; 0 leaves it out."})
    icg_weight: float = field(default=1.0, metadata={"help": "Weight of caption generation; 0 leaves it out."})
    msp_weight: float = field(default=1.0, metadata={"help": "Weight of masked spatial prediction; 0 leaves it out."})
    projection_size: int = field(default=256, metadata={"help": "Width of the contrastive features."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Of contrast, captions and masked items."})
    attn_implementation: str = field(default="sdpa", metadata={"help": "eager, sdpa or flex_attention."})

    def __post_init__(self) -> None:
        for name in ("vision_config", "mqformer_config"):
            setattr(self, name, as_mapping(getattr(self, name), name))


def as_mapping(value: Any, name: str) -> dict[str, Any]:
    """A mapping of a recipe, or the JSON text of one from the command line.

    Raises:
        ValueError: naming the option, when it is neither.
    """
    try:
        value = json.loads(value) if isinstance(value, str) else value or {}
    except ValueError as error:
        raise ValueError(f"{name} is no JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, got {value!r}.")
    return value


def build_pretraining(arguments: PretrainingModelArguments) -> tuple[LyricsForPreTraining, LyricsProcessor]:
    """Model and processor of a recipe.

    Raises:
        ValueError: when the settings contradict each other, saying which.
    """
    weights = {name: getattr(arguments, name) for name in ("itc_weight", "itm_weight", "icg_weight", "msp_weight")}
    settings = {**weights, "label_smoothing": arguments.label_smoothing}
    if arguments.checkpoint is not None:
        processor = _open_processor(arguments, None)
        model = LyricsForPreTraining.from_pretrained(
            arguments.checkpoint, attn_implementation=arguments.attn_implementation, **settings
        )
        return model, processor
    vision = _build_vision(arguments)
    processor = _open_processor(arguments, vision.config)
    tokenizer = add_stage_1_tokens(processor.mqformer_tokenizer)
    mqformer, head = _build_mqformer(arguments, tokenizer, vision.config.hidden_size)
    config = mqformer if isinstance(mqformer, PreTrainedConfig) else mqformer.config
    processor.num_query_tokens, processor.region_feature_size = config.num_queries, config.region_hidden_size
    model = LyricsForPreTraining.from_parts(
        vision, mqformer, head, projection_size=arguments.projection_size, **settings
    )
    model.set_attn_implementation(arguments.attn_implementation)
    return model, processor


def _build_vision(arguments: PretrainingModelArguments) -> Any:
    if arguments.vision_model is not None:
        from transformers import AutoModel

        vision = AutoModel.from_pretrained(arguments.vision_model, attn_implementation=arguments.attn_implementation)
        return getattr(vision, "vision_model", vision)
    if not arguments.vision_config:
        raise ValueError("Give vision_model, a pretrained vision encoder, or vision_config, that of a new one.")
    fields: Any = arguments.vision_config
    return build_vision_model(AutoConfig.for_model(**fields))


def _build_mqformer(arguments: PretrainingModelArguments, tokenizer: Any, vision_width: int) -> tuple[Any, Any]:
    """An MQ-Former and BERT's head, or the configuration of a new one and nothing."""
    fields: Any = arguments.mqformer_config or {}
    if arguments.mqformer is not None:
        return load_mqformer(arguments.mqformer, tokenizer, encoder_hidden_size=vision_width, **fields)
    return LyricsMQFormerConfig(vocab_size=len(tokenizer), encoder_hidden_size=vision_width, **fields), None


def _open_processor(arguments: PretrainingModelArguments, vision_config: Any) -> LyricsProcessor:
    place = arguments.processor or arguments.checkpoint
    if place is not None:
        processor = LyricsProcessor.from_pretrained(place)
        if vision_config is not None:  # it comes with a vision encoder of its own
            processor.image_processor = _build_image_processor(arguments, vision_config)
        return processor
    if arguments.tokenizer == SPELLING:
        from ..assets.random_model import build_bert_tokenizer

        tokenizer = build_bert_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    # the first stage has no language model: its tokenizer takes the place, until the second stage brings another
    return LyricsProcessor(_build_image_processor(arguments, vision_config), copy.deepcopy(tokenizer), tokenizer)


def _build_image_processor(arguments: PretrainingModelArguments, vision_config: Any) -> Any:
    """With the vision encoder's own size and normalisation."""
    side = vision_config.image_size
    settings: dict[str, Any] = {"size": {"height": side, "width": side}}
    if arguments.vision_model is not None:
        try:
            own: Any = AutoImageProcessor.from_pretrained(arguments.vision_model)
        except OSError:
            logger.warning("%s has no image processor: CLIP's normalisation is used.", arguments.vision_model)
        else:
            settings |= {"image_mean": own.image_mean, "image_std": own.image_std, "resample": own.resample}
    return LyricsImageProcessor(**settings)
