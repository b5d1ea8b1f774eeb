"""Floating-point operations of a training step of the second stage, calculated from the sizes of a model.

A linear layer takes 2 operations for each weight and token, forward. Backward takes as many for the gradient of its
input, and again for the gradient of its weight. A frozen weight needs none of the latter, so that LoRA saves a third.
Attention takes 4 operations for each pair of tokens and unit of width, forward, and twice that backward; causal masks
save nothing here, as is usual. Embeddings, norms and activations are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .trainable_parts import TuningArguments


@dataclass(frozen=True)
class ConversationSize:
    """Size of a conversation with images.

    Attributes:
        tokens: int, number of positions of the language model, those of the images among them.
        labels: int, number of positions that the head is applied to.
        images: int, number of images.
        regions: int, number of regions of an image.
        mqformer_tokens: int, number of text tokens that the MQ-Former reads beside an image.
    """

    tokens: int = 1024
    labels: int = 512
    images: int = 1
    regions: int = 16
    mqformer_tokens: int = 200


def count_training_flops(
    config: Any, args: TuningArguments, size: ConversationSize, checkpointing: bool = False
) -> dict[str, float]:
    """Return the operations of a training step on one conversation, by part of the model.

    Args:
        config: `LyricsConfig` with a vision encoder in CLIP's form, and a language model in LLaMA's.
        args: training arguments; `lora_targets` are names of LLaMA's layers.
        size: size of the conversation.
        checkpointing: whether the layers of the MQ-Former and the language model run forward a second time, as with
            activation checkpointing.
    """
    vision, mqformer, language = (args.trains(part) for part in ("vision_model", "mqformer", "language_model"))
    text, queries = config.text_config, config.mqformer_config.num_queries
    projection = 2.0 * size.images * queries * config.mqformer_config.hidden_size * text.hidden_size
    return {
        "vision_model": size.images * _vision_model(config.vision_config) * (3 if vision else 1),
        "mqformer": size.images * _mqformer(config, size, vision, mqformer, checkpointing),
        "language_projection": projection * (1 + args.trains("projection") + (vision or mqformer)),
        "language_model": _language_model(text, args, size.tokens, checkpointing),
        "lm_head": 2.0 * size.labels * text.hidden_size * text.vocab_size * (3 if language else 2),
    }


def _vision_model(config: Any) -> float:
    """Return the operations of one pass over an image."""
    width, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
    patching = 2.0 * patches * config.num_channels * config.patch_size**2 * width
    tokens = patches + 1
    layer = 2.0 * tokens * (4 * width**2 + 2 * width * config.intermediate_size) + 4.0 * tokens**2 * width
    return patching + config.num_hidden_layers * layer


def _mqformer(config: Any, size: ConversationSize, vision: bool, trained: bool, checkpointing: bool) -> float:
    """Return the operations of a training step on one image.

    The gradient of the image's features is needed for the vision encoder, and for the LayerNorm behind it.
    """
    mqformer = config.mqformer_config
    width, queries = mqformer.hidden_size, mqformer.num_queries
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
    tokens = queries + size.mqformer_tokens
    inner, whole = mqformer.intermediate_size, mqformer.num_hidden_layers - 1
    # the last layer computes keys and values of all tokens, and all else of the queries alone
    linear = (
        2.0 * width * (whole * tokens * (4 * width + 2 * inner) + tokens * 2 * width + queries * 2 * (width + inner))
    )
    attention = 4.0 * width * tokens * (whole * tokens + queries)
    crossing = -(-mqformer.num_hidden_layers // mqformer.cross_attention_frequency)  # layers with cross-attention
    linear += crossing * 2.0 * queries * 2 * width**2  # queries and outputs
    pairs = mqformer.num_visual_queries * patches + mqformer.num_grounding_queries * size.regions
    attention += crossing * 4.0 * pairs * width
    features = crossing * 4.0 * patches * mqformer.encoder_hidden_size * width  # keys and values
    regions = crossing * 4.0 * size.regions * mqformer.region_input_size * width
    again = checkpointing and (trained or vision)
    hands_down = trained or vision  # gradients of inputs
    of_features = vision or (trained and mqformer.normalize_vision_features)
    return (
        linear * (1 + trained + hands_down + again)
        + attention * (1 + 2 * hands_down + again)
        + features * (1 + trained + of_features + again)
        + regions * (1 + trained + again)
    )


def _language_model(config: Any, args: TuningArguments, tokens: int, checkpointing: bool) -> float:
    """Return the operations of a training step, without the head."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes = {"q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (queries, width)}
    shapes |= {"gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width)}
    linear = 2.0 * tokens * sum(given * made for given, made in shapes.values())
    attention = 4.0 * tokens**2 * queries
    total = linear * (2 + args.trains("language_model") + checkpointing) + attention * (3 + checkpointing)
    if args.use_lora:
        total += 2.0 * tokens * args.lora_r * sum(sum(shapes[name]) for name in args.lora_targets) * (3 + checkpointing)
    return layers * total
