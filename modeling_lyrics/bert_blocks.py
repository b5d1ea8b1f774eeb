"""BERT's residual blocks, shared by the MQ-Former and by RAM's tagging head.

Masks are boolean, True where attention is allowed: a query that may attend to nothing then has an exactly zero context
in eager, sdpa and flex attention, in every dtype, where a mask of large negative numbers would give it the average of
all values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import flex_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

KeyValue = tuple[torch.Tensor, torch.Tensor]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out; returns `(batch, queries, heads, head_dim)` and the weights.

    `attention_mask` is boolean and broadcasts to `(batch, heads, queries, keys)`.
    """
    scores = torch.matmul(query * scaling, key.transpose(-1, -2)).float()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).to(query.dtype)
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, 0.0)  # a fully masked row is uniform up to here
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def prepare_attention_mask(
    allowed: torch.Tensor | None, num_queries: int, implementation: str | None, dtype: torch.dtype
) -> Any:
    """Turn a boolean mask into what the attention implementation takes, once for all layers.

    Args:
        allowed: (batch, 1, queries or 1, keys) bool, True where attention is allowed.
        num_queries: of the attention.
        implementation: of the configuration.
        dtype: of the attention's tensors outside autocast.
    """
    if allowed is None:
        return None
    if implementation == "sdpa":
        # it would make this of a boolean mask in every layer, and keep each for the backward pass
        kind = allowed.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        allowed = torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, -torch.inf)
    allowed = allowed.expand(-1, 1, num_queries, -1)
    if implementation != "flex_attention":
        return allowed
    return flex_attention_mask(
        batch_size=allowed.shape[0],
        q_length=num_queries,
        kv_length=allowed.shape[-1],
        mask_function=lambda batch, head, query, key: allowed[batch, 0, query, key],
        device=allowed.device,
    )


class KeyValueProjection(nn.Module):
    """Keys and values of one attention, a module of its own so that they can be computed ahead and shared.

    The first `num_positions` keys also say which one they are; values do not. With `has_nothing` a key stands before
    them that is learned and whose value is zero: nothing, to attend to.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_heads: int, num_positions: int = 0, has_nothing: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.key = nn.Linear(input_size, hidden_size)
        self.value = nn.Linear(input_size, hidden_size)
        self.positions = nn.Embedding(num_positions, hidden_size) if num_positions else None
        self.nothing = nn.Embedding(1, hidden_size) if has_nothing else None

    def forward(self, states: torch.Tensor) -> KeyValue:
        """`(batch, keys, input_size)` -> two tensors `(batch, heads, keys, head_dim)`; `has_nothing`: a key more."""
        key, value = self.key(states), self.value(states)
        if self.positions is not None:
            positions = self.positions.weight[: states.shape[1]]
            key = key + nn.functional.pad(positions, (0, 0, 0, states.shape[1] - len(positions)))
        if self.nothing is not None:
            key = torch.cat([self.nothing.weight.expand(len(key), 1, -1), key], dim=1)
            value = nn.functional.pad(value, (0, 0, 1, 0))
        shape = (*key.shape[:2], self.num_heads, self.head_dim)
        return key.view(shape).transpose(1, 2), value.view(shape).transpose(1, 2)


class AttentionBlock(nn.Module):
    """Multi-head attention with BERT's output projection, residual and LayerNorm."""

    is_causal = False

    def __init__(
        self, config: PreTrainedConfig, key_value_size: int, num_positions: int = 0, has_nothing: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = KeyValueProjection(
            key_value_size, config.hidden_size, config.num_attention_heads, num_positions, has_nothing
        )
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        key_value: KeyValue | None,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `hidden_states` (batch, queries, hidden) to `key_value`.

        With `key_value=None` there is nothing to attend to: the context is zero. The weights returned are those of
        keys that are something.
        """
        weights = None
        if key_value is None:
            context = torch.zeros_like(hidden_states)
        else:
            context, weights = self._attend(hidden_states, key_value, attention_mask, **kwargs)
        return self.layer_norm(self.dropout(self.dense(context)) + hidden_states), weights

    def _attend(
        self, hidden_states: torch.Tensor, key_value: KeyValue, attention_mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_size, num_queries, hidden_size = hidden_states.shape
        query = self.query(hidden_states).view(batch_size, num_queries, self.num_heads, -1).transpose(1, 2)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        context, weights = attention(
            self,
            query,
            *key_value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        if weights is not None and self.key_value.nothing is not None:
            weights = weights[..., 1:]
        return context.reshape(batch_size, num_queries, hidden_size), weights


class FeedForwardBlock(nn.Module):
    """BERT's feed-forward network with its residual and LayerNorm."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, positions, hidden)` -> the same shape."""
        return self.layer_norm(self.dropout(self.fc2(self.activation(self.fc1(hidden_states)))) + hidden_states)
