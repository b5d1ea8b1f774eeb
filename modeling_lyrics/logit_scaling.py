"""Scaling of logits behind the language modeling head, as the configurations of some language models ask for."""

from __future__ import annotations

from typing import Any

import torch

_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")  # of Cohere, Muse Glimmer and Falcon-H1


def scale_logits(logits: torch.Tensor, text_config: Any) -> torch.Tensor:
    """Return logits as the language model's own class scales them.

    Args:
        logits: float tensor of shape (..., vocabulary), the output of the head.
        text_config: configuration of the language model. Gemma 2 caps logits softly (`final_logit_softcapping`),
            Granite divides them (`logits_scaling`), others multiply them.
    """
    for name in _FACTORS:
        if (factor := getattr(text_config, name, None)) is not None:
            logits = logits * factor
    if (scaling := getattr(text_config, "logits_scaling", None)) is not None:
        logits = logits * scaling if text_config.model_type == "hyperclovax" else logits / scaling
    if (cap := getattr(text_config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
