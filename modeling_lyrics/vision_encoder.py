"""The vision encoder of a model: building it, running it, and joining it with an MQ-Former of the same width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .configuration_mqformer import LyricsMQFormerConfig
from .modeling_mqformer import LyricsMQFormerModel


def build_vision_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a new vision encoder; those of BLIP-2 and InstructBLIP are unknown to the auto classes."""
    if config.model_type == "blip_2_vision_model":
        from transformers import Blip2VisionModel

        return Blip2VisionModel._from_config(config)  # pyright: ignore[reportPrivateUsage]
    if config.model_type == "instructblip_vision_model":
        from transformers import InstructBlipVisionModel

        return InstructBlipVisionModel._from_config(config)  # pyright: ignore[reportPrivateUsage]
    return AutoModel.from_config(config, trust_remote_code=False)


def run_vision_model(
    vision_model: Any, pixel_values: torch.Tensor, layer: int, *, output_hidden_states: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, Any]:
    """Run the vision encoder.

    Args:
        vision_model: vision encoder of Transformers.
        pixel_values: float tensor of shape (N, 3, H, W).
        layer: index of the hidden state to return; -1 is `last_hidden_state`.
        output_hidden_states: whether all hidden states are computed.
        kwargs: further arguments of the encoder.

    Returns:
        The hidden state of shape (N, P, vision width), and the encoder's output.
    """
    output = vision_model(
        pixel_values.to(vision_model.dtype),
        output_hidden_states=output_hidden_states or (False if layer == -1 else layer),  # an index keeps one layer
        return_dict=True,
        **kwargs,
    )
    return (output.last_hidden_state if layer == -1 else output.hidden_states[layer]), output


def prepare_parts(
    vision_model: PreTrainedModel | str | Path,
    mqformer: LyricsMQFormerModel | PreTrainedConfig | None,
    config_kwargs: dict[str, Any],
) -> tuple[Any, Any, dict[str, Any]]:
    """Load and check the vision encoder and the MQ-Former of a new model.

    `vision_feature_layer` defaults to -2 for CLIP, as in BLIP-2 and LLaVA, and to -1 for other encoders. A new
    MQ-Former normalizes vision features that did not pass the encoder's final LayerNorm.

    Args:
        vision_model: vision encoder, model that holds one as `vision_model`, or folder or Hub id of one.
        mqformer: MQ-Former, configuration of a new one, or `None`.
        config_kwargs: dictionary of further fields of the model's configuration.

    Returns:
        The vision encoder, the MQ-Former or its configuration, and the fields with `vision_feature_layer`.

    Raises:
        ValueError: the MQ-Former attends to features of another width.
    """
    vision: Any = vision_model
    if isinstance(vision_model, str | Path):
        vision = AutoModel.from_pretrained(vision_model, trust_remote_code=False)
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
