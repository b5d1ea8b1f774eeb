"""BERT's residual blocks, shared by the MQ-Former and by RAM's tagging head.

Masks are boolean, True where attention is allowed. The context of a fully masked query is then exactly zero in eager,
sdpa and flex attention and in every dtype. An additive mask of large negative numbers would give it the mean of all
values instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
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
    """Compute softmax attention in plain PyTorch.

    Args:
        module: attention module; its training mode switches dropout.
        query: float tensor of shape (batch, heads, queries, head_dim).
        key, value: float tensors of shape (batch, heads, keys, head_dim).
        attention_mask: bool tensor that broadcasts to (batch, heads, queries, keys), or `None`.
        scaling: factor of the scores.
        dropout: probability of dropping a weight.
        kwargs: ignored; other implementations take more.

    Returns:
        The context of shape (batch, queries, heads, head_dim), and the weights of shape (batch, heads, queries, keys).
    """
    scores = torch.matmul(query * scaling, key.transpose(-1, -2)).float()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).to(query.dtype)
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, 0.0)  # up to here, a fully masked row is uniform
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def prepare_attention_mask(
    allowed: torch.Tensor | None, num_queries: int, implementation: str | None, dtype: torch.dtype
) -> Any:
    """Convert a boolean mask to the form that the attention implementation takes, once for all layers.

    Args:
        allowed: bool tensor of shape (batch, 1, queries or 1, keys), True where attention is allowed.
        num_queries: number of queries.
        implementation: name of the attention implementation.
        dtype: dtype of the attention's tensors outside autocast.
    """
    if allowed is None:
        return None
    if implementation == "sdpa":
        # sdpa would convert a boolean mask in every layer, and keep each result for the backward pass
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
    """Key and value projections of one attention; a module, so that they can be computed once and shared.

    Args:
        input_size: width of the input.
        hidden_size: width of the keys and values over all heads.
        num_heads: number of heads.
        num_positions: number of keys, from the first, that get a learned position embedding; values get none.
        has_nothing: prepend a learned key with a zero value, so that a query can attend to nothing.
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
        """Project the input to keys and values.

        Args:
            states: float tensor of shape (batch, keys, input_size).

        Returns:
            Two tensors of shape (batch, heads, keys, head_dim); with `has_nothing`, of one key more.
        """
        key, value = self.key(states), self.value(states)
        # embeddings are called and never read, since offloading loads the weights of a module when it is called
        if self.positions is not None:
            count = min(self.positions.num_embeddings, states.shape[1])
            positions = self.positions(torch.arange(count, device=states.device))
            key = key + nn.functional.pad(positions, (0, 0, 0, states.shape[1] - count))
        if self.nothing is not None:
            nothing = self.nothing(torch.zeros(1, dtype=torch.long, device=states.device))
            key = torch.cat([nothing.expand(len(key), 1, -1), key], dim=1)
            value = nn.functional.pad(value, (0, 0, 1, 0))
        shape = (*key.shape[:2], self.num_heads, self.head_dim)
        return key.view(shape).transpose(1, 2), value.view(shape).transpose(1, 2)


class AttentionBlock(nn.Module):
    """Multi-head attention with BERT's output projection, residual connection and LayerNorm.

    Args:
        config: configuration with BERT's sizes.
        key_value_size: width of the states that are attended to.
        num_positions, has_nothing: options of `KeyValueProjection`.
    """

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
        """Attend to projected keys and values.

        Args:
            hidden_states: float tensor of shape (batch, queries, hidden).
            key_value: output of `KeyValueProjection`, or `None` for a zero context.
            attention_mask: mask of `prepare_attention_mask`.
            kwargs: further arguments of the attention implementation.

        Returns:
            The states of shape (batch, queries, hidden), and the attention weights without the key of `has_nothing`,
            where the implementation returns any.
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
        """Return the context (batch, queries, hidden), and the weights where the implementation returns any."""
        batch_size, num_queries, hidden_size = hidden_states.shape
        query = self.query(hidden_states).view(batch_size, num_queries, self.num_heads, -1).transpose(1, 2)
        attention: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager",  # pyright: ignore[reportPrivateUsage]
            eager_attention_forward,
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
    """BERT's feed-forward network with its residual connection and LayerNorm."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor, recompute: bool = False) -> torch.Tensor:
        """Apply the network.

        Args:
            hidden_states: float tensor of shape (batch, positions, hidden); the shape stays.
            recompute: bool, whether the backward pass computes the wide states again instead of keeping them, which
                are half of a layer's memory and a third of its operations.
        """
        if recompute and torch.is_grad_enabled():
            states = checkpoint(self._transform, hidden_states, use_reentrant=False)
        else:
            states = self._transform(hidden_states)
        return self.layer_norm(self.dropout(states) + hidden_states)

    def _transform(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the output of both linear layers, before dropout."""
        return self.fc2(self.activation(self.fc1(hidden_states)))
