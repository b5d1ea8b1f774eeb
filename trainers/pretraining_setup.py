"""Model and processor of the first stage, built from plain settings."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..conversion import load_mqformer
from ..conversion.image_processor import build_image_processor
from ..modeling_lyrics import LyricsForPreTraining, LyricsMQFormerConfig, LyricsPreTrainingConfig
from ..modeling_lyrics.vision_encoder import build_vision_model
from ..processing_lyrics import LyricsProcessor
from ..processing_lyrics.model_inputs import BOS
from ..processing_lyrics.pretraining_inputs import add_stage_1_tokens
from ..processing_lyrics.spatial_text import SpatialStyle
from .common.data_arguments import require_one_of

logger = logging.get_logger(__name__)

SPELLING = "spelling"


@dataclass
class PretrainingModelArguments:
    """Checkpoints and configurations that the first stage starts from.

    Attributes:
        merged_options: names of the mappings that the command line changes field by field, instead of replacing them.
    """

    merged_options: ClassVar[tuple[str, ...]] = ("mqformer_config",)

    checkpoint: str | None = field(default=None, metadata={"help": "First-stage checkpoint to continue from."})
    vision_model: str | None = field(default=None, metadata={"help": "Directory or Hub id of a vision encoder."})
    vision_config: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Configuration of a new vision encoder instead, with its model_type."}
    )
    mqformer: str | None = field(
        default=None, metadata={"help": "BERT, BLIP-2 or InstructBLIP to initialize the MQ-Former; else it is random."}
    )
    mqformer_config: dict[str, Any] | str | None = field(
        default_factory=dict,
        metadata={
            "help": "Fields of the MQ-Former's configuration that differ from the paper; on the command line, from the "
            "recipe."
        },
    )
    tokenizer: str = field(
        default="bert-base-uncased", metadata={"help": "The MQ-Former's; 'spelling' for a small tokenizer of letters."}
    )
    processor: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint whose refiner finds objects that are not stored, and the processor of a new model."
        },
    )
    spatial_text: str | None = field(
        default=None,
        metadata={
            "help": "How a new model reads objects: decimal (label: [0.100, ...]), or short (label: 100 ...), with "
            "a third of the tokens; by default as the processor writes them, or decimal."
        },
    )
    itc_weight: float = field(default=1.0, metadata={"help": "Weight of image-text contrast; 0 disables it."})
    itm_weight: float = field(default=1.0, metadata={"help": "Weight of image-text matching; 0 disables it."})
    icg_weight: float = field(default=1.0, metadata={"help": "Weight of caption generation; 0 disables it."})
    msp_weight: float = field(default=1.0, metadata={"help": "Weight of masked spatial prediction; 0 disables it."})
    projection_size: int = field(default=256, metadata={"help": "Width of the contrastive features."})
    label_smoothing: float = field(default=0.1, metadata={"help": "For contrast, captions and masked items."})
    attn_implementation: str = field(default="sdpa", metadata={"help": "eager, sdpa or flex_attention."})

    def __post_init__(self) -> None:
        if self.spatial_text is not None:
            require_one_of("spatial_text", self.spatial_text, get_args(SpatialStyle))
        for name in ("vision_config", "mqformer_config"):
            value = getattr(self, name) or {}
            try:
                value = json.loads(value) if isinstance(value, str) else value  # JSON text from the command line
            except ValueError as error:
                raise ValueError(f"{name} is not a JSON object: {error}") from error
            if not isinstance(value, dict):
                raise ValueError(f"{name} must be a mapping, got {value!r}.")
            setattr(self, name, value)


def build_pretraining(arguments: PretrainingModelArguments) -> tuple[LyricsForPreTraining, LyricsProcessor]:
    """Build the model and the processor of a recipe.

    Raises:
        ValueError: if the settings contradict each other; the message names them.
    """
    names = ("itc_weight", "itm_weight", "icg_weight", "msp_weight", "label_smoothing")
    settings = {name: getattr(arguments, name) for name in names}
    if arguments.checkpoint is not None:
        _check_first_stage(arguments.checkpoint)
        processor = _build_processor(arguments, None)
        model = LyricsForPreTraining.from_pretrained(
            arguments.checkpoint, attn_implementation=arguments.attn_implementation, **settings
        )
        return model, processor
    vision = _build_vision_model(arguments)
    processor = _build_processor(arguments, vision.config)
    tokenizer = add_stage_1_tokens(processor.mqformer_tokenizer)
    fields: Any = arguments.mqformer_config
    fields = {**fields, "encoder_hidden_size": vision.config.hidden_size}
    if arguments.processor is not None:
        _take_region_width(fields, processor, arguments.processor)
    if arguments.mqformer is not None:
        mqformer, head = load_mqformer(arguments.mqformer, tokenizer, **fields)
        config = mqformer.config
    else:
        mqformer = config = LyricsMQFormerConfig(vocab_size=len(tokenizer), **fields)
        head = None
    processor.num_query_tokens, processor.region_feature_size = config.num_queries, config.region_hidden_size
    model = LyricsForPreTraining.from_parts(
        vision, mqformer, head, projection_size=arguments.projection_size, **settings
    )
    model.set_attn_implementation(arguments.attn_implementation)
    model.config.object_start_token_id = tokenizer.convert_tokens_to_ids(BOS)
    return model, processor


def _check_first_stage(checkpoint: str) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        ValueError: it is no first stage.
    """
    kind = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).model_type
    if kind != LyricsPreTrainingConfig.model_type:
        raise ValueError(
            f"{checkpoint} is a model of type {kind!r}, and the first stage goes on from a first stage "
            f"({LyricsPreTrainingConfig.model_type!r}), as `lyrics pretrain` writes it."
        )


def _take_region_width(fields: dict[str, Any], processor: LyricsProcessor, place: str) -> None:
    """Let an MQ-Former take region features as a processor's refiner makes them.

    Raises:
        ValueError: its configuration says another width.
    """
    width = processor.region_feature_size
    if fields.setdefault("region_hidden_size", width) != width and fields.get("num_grounding_queries") != 0:
        raise ValueError(
            f"mqformer_config has region_hidden_size {fields['region_hidden_size']}, and the refiner of {place} makes "
            f"region features of width {width}. Leave region_hidden_size out, or set it to {width}."
        )


def _build_vision_model(arguments: PretrainingModelArguments) -> PreTrainedModel:
    if arguments.vision_model is not None:
        vision = AutoModel.from_pretrained(
            arguments.vision_model, attn_implementation=arguments.attn_implementation, trust_remote_code=False
        )
        return getattr(vision, "vision_model", vision)
    if not arguments.vision_config:
        raise ValueError("Give vision_model, a pretrained vision encoder, or vision_config, that of a new one.")
    fields: Any = arguments.vision_config
    return build_vision_model(AutoConfig.for_model(**fields))


def _load_processor(checkpoint: str, spatial_text: str | None, refiner: str | None) -> LyricsProcessor:
    """Load the processor of a first stage, and give it the refiner of another model.

    Raises:
        ValueError: the first stage was trained with another spatial text or with another refiner.
    """
    processor = LyricsProcessor.from_pretrained(checkpoint)
    if spatial_text not in (None, processor.spatial_text):
        raise ValueError(
            f"{checkpoint} was trained on {processor.spatial_text} spatial text and cannot read {spatial_text}: leave "
            "spatial_text out."
        )
    if refiner is not None:
        processor.share_refiner_of(LyricsProcessor.from_pretrained(refiner))
    return processor


def _build_processor(arguments: PretrainingModelArguments, vision_config: PreTrainedConfig | None) -> LyricsProcessor:
    """Load or build a processor.

    Args:
        arguments: settings of the recipe.
        vision_config: configuration of the vision encoder of a new model, for a new image processor.
    """
    if arguments.checkpoint is not None:
        return _load_processor(arguments.checkpoint, arguments.spatial_text, arguments.processor)
    if arguments.processor is not None:
        processor = LyricsProcessor.from_pretrained(arguments.processor)
        processor.spatial_text = arguments.spatial_text or processor.spatial_text  # pyright: ignore[reportAttributeAccessIssue]
        if vision_config is not None:
            processor.image_processor = build_image_processor(arguments.vision_model, vision_config)
        return processor
    assert vision_config is not None, "without a checkpoint the vision encoder is a new one"
    if arguments.tokenizer == SPELLING:
        from ..assets.random_model import build_bert_tokenizer

        tokenizer: Any = build_bert_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer, trust_remote_code=False)
    # The first stage has no language model. A copy of its tokenizer takes that place until the second stage.
    return LyricsProcessor(
        build_image_processor(arguments.vision_model, vision_config),
        copy.deepcopy(tokenizer),
        tokenizer,
        spatial_text=arguments.spatial_text or "decimal",  # pyright: ignore[reportArgumentType]
    )
