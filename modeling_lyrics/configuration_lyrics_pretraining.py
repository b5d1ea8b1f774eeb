"""Configuration of the first training stage: vision encoder, MQ-Former and training objectives."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec

from .configuration_base import FINITE, NOT_NEGATIVE, POSITIVE, RATE, CheckedConfig, check_model_type, check_numbers
from .configuration_lyrics import LyricsConfig
from .configuration_mqformer import LyricsMQFormerConfig
from .published_config import is_published_config, translate_pretraining_config

OBJECTIVES = ("itc", "itm", "icg", "msp")


@strict
class LyricsPreTrainingConfig(CheckedConfig):
    """Configuration of `LyricsForPreTraining`, the paper's first stage.

    Args:
        vision_config: configuration of any Transformers vision encoder; the paper's is CLIP ViT-L/14.
        mqformer_config: `LyricsMQFormerConfig`; its `encoder_hidden_size` is set to the vision encoder's width.
        vision_feature_layer: index of the vision encoder's hidden state that is used; -1 is its `last_hidden_state`.
        itc_weight, itm_weight, icg_weight, msp_weight: weights of the loss terms: image-text contrast, image-text
            matching, image-grounded caption generation, masked spatial prediction. An objective of weight 0 is not
            computed and has no head. Without grounding queries there is no spatial text, and `msp_weight` must be 0.
        projection_size: width of the contrastive features.
        temperature: initial temperature of the contrastive loss, which is learned.
        label_smoothing: label smoothing of the contrastive and of both language modeling losses.
        tie_word_embeddings: bool, whether the language modeling head shares the word embeddings of the MQ-Former.
        initializer_range: standard deviation of new weights.
        object_start_token_id: id of `[BOS]` in the MQ-Former's vocabulary, for texts of a plain BERT tokenizer, as the
            pipeline for zero-shot classification makes them; `None` where only `LyricsProcessor` makes them.
    """

    model_type = "lyrics_pretraining"
    sub_configs_defaults = {
        "vision_config": LyricsConfig.sub_configs_defaults["vision_config"],
        "mqformer_config": SubConfigSpec(config_class=LyricsMQFormerConfig),
    }

    vision_config: Any = None
    mqformer_config: Any = None
    vision_feature_layer: int = -2
    itc_weight: float | int = 1.0
    itm_weight: float | int = 1.0
    icg_weight: float | int = 1.0
    msp_weight: float | int = 1.0
    projection_size: int = 256
    temperature: float | int = 0.07
    label_smoothing: float | int = 0.1
    tie_word_embeddings: bool = True
    initializer_range: float | int = 0.02
    object_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Set the width of the vision features in the MQ-Former's configuration."""
        super().__post_init__(**kwargs)
        self.mqformer_config.encoder_hidden_size = self.vision_config.hidden_size

    def loss_weights(self) -> dict[str, float]:
        """Return the weight of each objective that has one."""
        weights = {name: float(getattr(self, f"{name}_weight")) for name in OBJECTIVES}
        return {name: weight for name, weight in weights.items() if weight}

    def validate_architecture(self) -> None:
        """Check the loss weights and other numbers (called by `@strict`)."""
        check_numbers(self, POSITIVE, "temperature", "projection_size")
        check_numbers(self, RATE, "label_smoothing")
        check_numbers(self, NOT_NEGATIVE, "initializer_range")
        check_numbers(self, FINITE, *(f"{name}_weight" for name in OBJECTIVES))
        check_numbers(self.vision_config, POSITIVE, "num_hidden_layers", "hidden_size", "num_attention_heads")
        weights = {f"{name}_weight": getattr(self, f"{name}_weight") for name in OBJECTIVES}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(
                f"LyricsPreTrainingConfig: loss weights must not be negative, nor all 0, but are {weights}."
            )
        if self.msp_weight and self.mqformer_config is not None and not self.mqformer_config.num_grounding_queries:
            raise ValueError(
                f"LyricsPreTrainingConfig: msp_weight is {self.msp_weight}, but without grounding queries there is no "
                "spatial text to predict; set it to 0."
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of a checkpoint, and the unused arguments; the published layout is translated."""
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_published_config(config_dict):
            config_dict = translate_pretraining_config(config_dict)
        check_model_type(config_dict, pretrained_model_name_or_path, ("lyrics_pretraining", "lyrics"))
        return config_dict, unused_kwargs


__all__ = ["LyricsPreTrainingConfig"]
