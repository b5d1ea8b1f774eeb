"""Coordinates as words that know how far they are from each other."""

from __future__ import annotations

import math
from typing import Any

import torch

_OCTAVES = 6  # of waves, the slowest of half a turn from 0 to 1


@torch.no_grad()
def compose_coordinates(table: torch.Tensor, tokenizer: Any) -> None:
    """Let coordinates begin as sampled waves, so that near ones are alike.

    They are waves as those by which the MQ-Former is told boxes (`region_box_octaves`), in directions of their own.

    Args:
        table: embeddings, `(vocab_size, width)`, whose rows of coordinates change; their variance does not.
        tokenizer: for which a coordinate with two decimals is one token.
    """
    values = torch.arange(101) / 100
    angles = values[:, None] * math.pi * 2.0 ** torch.arange(_OCTAVES)
    directions, _ = torch.linalg.qr(torch.randn(table.shape[1], 2 * _OCTAVES))
    waves = torch.cat([angles.sin(), angles.cos()], dim=1) @ directions.mT
    ids = [tokenizer.convert_tokens_to_ids(f"{value:.2f}") for value in values.tolist()]
    table[ids] = waves * (table[ids].norm(dim=1).mean() / _OCTAVES**0.5)
