"""What some language models need beside embeddings: rows of ids for every layer, or a mask without the past.

Transformers' own classes of these models prepare both, around the part that a Lyrics model takes from them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_recurrent_attention_mask


def prepare_mask(
    text_config: Any, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None
) -> torch.Tensor | None:
    """Return the mask as the language model's layers take it.

    A model of state-space layers alone, such as Mamba, masks the tokens that it is given. A mask that covers the past
    as well, as `generate` passes it for padded prompts, would be applied to the wrong tokens.

    Args:
        text_config: configuration of the language model.
        inputs_embeds: float tensor of shape (B, L, text width).
        attention_mask: int64 tensor of shape (B, past + L), or a mask of another form.
        cache: keys, values and states of the past.

    Returns:
        The mask as it was given; for such a model an int64 tensor of shape (B, L), or `None` where nothing is masked.
    """
    if set(getattr(text_config, "layer_types", None) or ()) != {"linear_attention"}:
        return attention_mask
    return create_recurrent_attention_mask(text_config, inputs_embeds, attention_mask, cache)


def embed_for_layers(
    language_model: nn.Module, text_config: Any, input_ids: torch.Tensor | None, image_token_id: int
) -> dict[str, torch.Tensor]:
    """Return the input of a language model that embeds tokens once more for its layers, as Gemma 3n and Gemma 4 do.

    An image has no ids: its placeholders count as padding there, as in the multimodal classes of these models.

    Args:
        language_model: language model without its head.
        text_config: configuration of the language model.
        input_ids: int64 tensor of shape (B, L).
        image_token_id: id of the placeholder, which may lie outside the vocabulary.

    Returns:
        `per_layer_inputs`, float tensor of shape (B, L, layers, width of an embedding); nothing for other models.

    Raises:
        ValueError: the model needs ids, and got embeddings alone.
    """
    if not getattr(text_config, "hidden_size_per_layer_input", None):
        return {}
    if input_ids is None:
        raise ValueError(
            f"A {text_config.model_type} embeds the ids of tokens in each of its layers: pass input_ids, beside "
            "inputs_embeds if need be."
        )
    table: Any = language_model.get_submodule("embed_tokens_per_layer")
    ids = input_ids.masked_fill(input_ids == image_token_id, text_config.pad_token_id or 0)
    ids = ids.masked_fill(ids >= table.num_embeddings, 0)  # Gemma 3n's table lacks the last tokens of its vocabulary
    width = text_config.hidden_size_per_layer_input
    return {"per_layer_inputs": table(ids).reshape(*ids.shape, text_config.num_hidden_layers, width)}


__all__ = ["embed_for_layers", "prepare_mask"]
