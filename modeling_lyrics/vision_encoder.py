"""The vision encoder of a model: building it, running it, and joining it with an MQ-Former of the same width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .configuration_mqformer import LyricsMQFormerConfig
from .modeling_mqformer import LyricsMQFormerModel


def build_vision_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A new vision encoder; BLIP-2's and InstructBLIP's are known to no auto class."""
    if config.model_type == "blip_2_vision_model":
        from transformers import Blip2VisionModel

        return Blip2VisionModel._from_config(config)
    if config.model_type == "instructblip_vision_model":
        from transformers import InstructBlipVisionModel

        return InstructBlipVisionModel._from_config(config)
    return AutoModel.from_config(config)


def run_vision_model(
    vision_model: Any, pixel_values: torch.Tensor, layer: int, *, output_hidden_states: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, Any]:
    """The hidden state (N, P, vision width) of `layer`, -1 for the last one, and all that the encoder returns."""
    output = vision_model(
        pixel_values.to(vision_model.dtype),
        output_hidden_states=output_hidden_states or (False if layer == -1 else layer),  # an index keeps that one only
        return_dict=True,
        **kwargs,
    )
    return (output.last_hidden_state if layer == -1 else output.hidden_states[layer]), output


def prepare_parts(
    vision_model: PreTrainedModel | str | Path,
    mqformer: LyricsMQFormerModel | PreTrainedConfig | None,
    config_kwargs: dict[str, Any],
) -> tuple[Any, Any, dict[str, Any]]:
    """Vision encoder, MQ-Former (or the configuration of a new one) and configuration of a model made of them.

    `vision_feature_layer` defaults to -2 for CLIP, as in BLIP-2 and LLaVA, and to -1 for every other encoder; a new
    MQ-Former normalises vision features where no final LayerNorm of the encoder has done so.

    Raises:
        ValueError: when the MQ-Former attends to features of another width.
    """
    vision: Any = AutoModel.from_pretrained(vision_model) if isinstance(vision_model, str | Path) else vision_model
    vision = getattr(vision, "vision_model", vision)
    layer = config_kwargs.get("vision_feature_layer", -2 if vision.config.model_type == "clip_vision_model" else -1)
    if mqformer is None:
        mqformer = LyricsMQFormerConfig(normalize_vision_features=layer != -1)
    if isinstance(mqformer, PreTrainedModel):
        width, given = mqformer.config.encoder_hidden_size, vision.config.hidden_size
        if width != given:
            raise ValueError(
                f"The MQ-Former attends to vision features of width {width}, but the vision encoder gives {given}."
            )
    return vision, mqformer, {**config_kwargs, "vision_feature_layer": layer}
