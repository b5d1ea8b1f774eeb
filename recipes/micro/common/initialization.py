"""Coordinates as words that know how far they are from each other."""

from __future__ import annotations

import math
from typing import Any

import torch

_OCTAVES = 6  # of waves, the slowest of half a turn from 0 to 1


def make_waves(values: torch.Tensor, octaves: int) -> torch.Tensor:
    """Sines and cosines of numbers in [0, 1], `(...)` -> `(..., 2 * octaves)`."""
    angles = values[..., None] * math.pi * 2.0 ** torch.arange(octaves, device=values.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def all_coordinates() -> torch.Tensor:
    """Those with two decimals, which are words: `(101,)`."""
    return torch.arange(101) / 100


@torch.no_grad()
def compose_coordinates(table: torch.Tensor, tokenizer: Any, vectors: torch.Tensor | None = None) -> None:
    """Let coordinates begin as sampled waves, so that near ones are alike.

    Args:
        table: embeddings, `(vocab_size, width)`, whose rows of coordinates change; how long they are does not.
        tokenizer: for which a coordinate with two decimals is one token.
        vectors: `(101, width)`, what they are to be like. By default waves as those by which the MQ-Former is told
            boxes (`region_box_octaves`), in directions of their own.
    """
    like = _sample_waves(table.shape[1]) if vectors is None else vectors
    ids = [tokenizer.convert_tokens_to_ids(f"{value:.2f}") for value in all_coordinates().tolist()]
    table[ids] = like / like.norm(dim=1, keepdim=True) * table[ids].norm(dim=1).mean()


def _sample_waves(width: int) -> torch.Tensor:
    directions, _ = torch.linalg.qr(torch.randn(width, 2 * _OCTAVES))
    return make_waves(all_coordinates(), _OCTAVES) @ directions.mT
