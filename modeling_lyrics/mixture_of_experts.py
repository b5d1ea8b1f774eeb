"""The loss that keeps the experts of a language model equally busy, as its own class adds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def balance_experts(
    router_logits: Sequence[torch.Tensor] | None, text_config: Any, attention_mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Compute the load-balancing loss of a mixture of experts (Switch Transformer, equations 4 to 6).

    Args:
        router_logits: sequence of float tensors of shape (B * L, experts), one for each layer, or `None`.
        text_config: configuration of the language model.
        attention_mask: int64 tensor of shape (B, L), 0 at tokens that do not count, or `None`.

    Returns:
        Scalar, without its coefficient. `None` without router logits, where the mask covers tokens of the past as well,
        or for a configuration without `router_aux_loss_coef`, such as that of DeepSeek-V3, which balances its experts
        in another way.
    """
    if not router_logits or getattr(text_config, "router_aux_loss_coef", None) is None:
        return None
    if attention_mask is not None and attention_mask.numel() != len(router_logits[0]):  # generation
        return None
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func  # not needed by other models

    experts = getattr(text_config, "num_experts", None) or text_config.num_local_experts
    logits: Any = tuple(router_logits)  # Transformers declares a tuple of one
    loss: Any = load_balancing_loss_func(logits, experts, text_config.num_experts_per_tok, attention_mask)
    return loss


__all__ = ["balance_experts"]
