"""Grounding DINO's original checkpoints (`groundingdino_swint_ogc.pth`), converted to Transformers' class."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection

from ..modeling_lyrics.published_config import grounding_dino_config_dict
from ..modeling_lyrics.weight_tables import GROUNDING_DINO
from .weights import (
    FilePath,
    StateDict,
    convert,
    count_layers,
    infer_swin,
    load_converted,
    read_weights,
    require_weights,
)


def load_grounding_dino(
    checkpoint: FilePath, *, num_attention_heads: int = 8, num_text_attention_heads: int | None = None
) -> GroundingDinoForObjectDetection:
    """Load Grounding DINO; all sizes except the numbers of heads are inferred from the weights.

    Args:
        checkpoint: original `.pth` file.
        num_attention_heads: number of attention heads of encoder and decoder.
        num_text_attention_heads: number of attention heads of BERT; by default one per 64 features.

    Raises:
        ValueError: if the file is damaged or is not such a checkpoint; the message names it.
    """
    weights, _, config = read_grounding_dino(checkpoint, num_attention_heads, num_text_attention_heads)
    return load_converted(GroundingDinoForObjectDetection, config, convert(weights, GROUNDING_DINO), checkpoint)


def read_grounding_dino(
    checkpoint: FilePath, num_attention_heads: int, num_text_attention_heads: int | None
) -> tuple[StateDict, dict[str, Any], GroundingDinoConfig]:
    """Return weights, original settings and Transformers' configuration; errors as in `load_grounding_dino`."""
    weights = {name.removeprefix("module."): tensor for name, tensor in read_weights(checkpoint).items()}
    require_weights(weights, ("transformer.level_embed", "transformer.tgt_embed.weight"), checkpoint)
    settings, bert = _infer_settings(weights, num_attention_heads), _infer_bert(weights, num_text_attention_heads)
    return weights, settings, GroundingDinoConfig(**grounding_dino_config_dict(settings, bert))


def _infer_settings(weights: StateDict, heads: int) -> dict[str, Any]:
    """Return the settings of the original code; those that weights do not show are the released models'."""
    levels = weights["transformer.level_embed"].shape[0]
    encoder, decoder = "transformer.encoder.layers.", "transformer.decoder.layers."
    return {
        **infer_swin(weights, "backbone.0."),
        "ape": False,
        "out_indices": [1, 2, 3],
        "num_queries": weights["transformer.tgt_embed.weight"].shape[0],
        "enc_layers": count_layers(weights, rf"^{encoder}(\d+)\."),
        "dec_layers": count_layers(weights, rf"^{decoder}(\d+)\."),
        "dim_feedforward": weights[f"{encoder}0.linear1.weight"].shape[0],
        "nheads": heads,
        "transformer_activation": "relu",
        "hidden_dim": weights["transformer.level_embed"].shape[1],
        "dropout": 0.0,
        "num_feature_levels": levels,
        "enc_n_points": weights[f"{encoder}0.self_attn.attention_weights.bias"].shape[0] // (heads * levels),
        "dec_n_points": weights[f"{decoder}0.cross_attn.attention_weights.bias"].shape[0] // (heads * levels),
        "dec_pred_bbox_embed_share": True,
        "pe_temperatureh": 20,
        "query_dim": 4,
        "max_text_len": 256,
        "fusion_droppath": 0.1,
        "fusion_dropout": 0.0,
        "text_dropout": 0.0,
    }


def _infer_bert(weights: StateDict, heads: int | None) -> dict[str, Any]:
    """Return the fields of BERT's configuration."""
    vocab_size, hidden_size = weights["bert.embeddings.word_embeddings.weight"].shape
    return {
        "model_type": BertConfig.model_type,
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": count_layers(weights, r"^bert\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": heads or hidden_size // 64,
        "intermediate_size": weights["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": weights["bert.embeddings.position_embeddings.weight"].shape[0],
    }
