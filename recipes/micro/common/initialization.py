"""Initialization of embeddings, attention and queries of the micro model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import LlamaForCausalLM, LlamaModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ....modeling_lyrics import LyricsMQFormerModel

_OCTAVES = 6  # frequencies of the coordinate embeddings; the lowest makes half a turn from 0 to 1
_QUERY_LOGIT_GAP = 10.0  # of a query's own region above all others


def fourier_features(values: torch.Tensor, octaves: int) -> torch.Tensor:
    """Return sines and cosines of numbers in [0, 1], from shape `(...)` to `(..., 2 * octaves)`."""
    angles = values[..., None] * math.pi * 2.0 ** torch.arange(octaves, device=values.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def coordinate_values() -> torch.Tensor:
    """Return the coordinates that are tokens: 0.00 to 1.00 in steps of 0.01, of shape `(101,)`."""
    return torch.arange(101) / 100


@torch.no_grad()
def init_coordinate_embeddings(
    table: torch.Tensor, tokenizer: PreTrainedTokenizerBase, vectors: torch.Tensor | None = None
) -> None:
    """Initialize the embeddings of coordinates so that nearby coordinates are similar.

    Args:
        table: embeddings of shape `(vocab_size, width)`. Only rows of coordinates change, and their mean norm does not.
        tokenizer: tokenizer for which a coordinate with two decimals is one token.
        vectors: directions of the embeddings, of shape `(101, width)`. By default Fourier features as of the
            MQ-Former's boxes (`region_box_octaves`), projected by a random orthogonal matrix.
    """
    if vectors is None:
        directions = torch.linalg.qr(torch.randn(table.shape[1], 2 * _OCTAVES)).Q
        vectors = torch.matmul(fourier_features(coordinate_values(), _OCTAVES), directions.mT)
    ids = [tokenizer.convert_tokens_to_ids(f"{value:.2f}") for value in coordinate_values().tolist()]
    table[ids] = vectors / vectors.norm(dim=1, keepdim=True) * table[ids].norm(dim=1).mean()


@torch.no_grad()
def init_name_embeddings(
    table: torch.Tensor, tokenizer: PreTrainedTokenizerFast, names: Mapping[str, Iterable[str]]
) -> None:
    """Initialize the embedding of a name as the sum of its words, so that names with a common word are similar.

    Args:
        table: embeddings of shape `(vocab_size, width)`. The sum is scaled so that the variance does not change.
        tokenizer: tokenizer for which every name is one token.
        names: names and the words that they consist of.
    """
    for name, words in names.items():
        ids = [word_id(tokenizer, word) for word in words]
        table[tokenizer.convert_tokens_to_ids(name)] = table[ids].sum(dim=0) / len(ids) ** 0.5


def word_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Return the token of a word after a space. For a digit it is the token without the space."""
    return tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1]


@torch.no_grad()
def zero_residual_branches(language_model: LlamaForCausalLM) -> None:
    """Initialize the output of every layer to zero, so that later layers can compare embeddings as they are."""
    for layer in language_model.model.layers:
        block: Any = layer
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()


@torch.no_grad()
def scale_attention_logits(language_model: LlamaModel, scale: float) -> None:
    """Multiply the attention logits of every layer.

    A model whose attention is concentrated on single vectors learns little from vectors of another kind.

    Args:
        language_model: LLaMA, whose query projections change.
        scale: float, factor of the logits.
    """
    for layer in language_model.layers:
        block: Any = layer
        block.self_attn.q_proj.weight.mul_(scale)


@torch.no_grad()
def init_queries_one_per_region(mqformer: LyricsMQFormerModel) -> None:
    """Initialize grounding attention so that the n-th grounding query attends to the n-th region.

    A query without a region attends to the learned zero value. Each object is then one vector from the start.

    Args:
        mqformer: MQ-Former with `region_nothing`. The keys of region positions in its first layer change.
    """
    attention: Any = mqformer.layers[0].grounding_cross_attention
    if attention is None:
        return
    key_value = attention.key_value
    embeddings = mqformer.embeddings(mqformer.query_tokens, None, None)[0, mqformer.config.num_visual_queries :]
    queries = attention.query(embeddings) * attention.scaling
    logits = torch.eye(len(key_value.positions.weight), len(queries)) * _QUERY_LOGIT_GAP
    zero_logits = torch.full((1, len(queries)), _QUERY_LOGIT_GAP / 2)
    keys = torch.cat([logits, zero_logits]) @ torch.linalg.pinv(queries).mT
    key_value.positions.weight.copy_(keys[:-1])
    key_value.nothing.weight.copy_(keys[-1:])
