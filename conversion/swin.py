"""The sizes of an original Swin encoder, read off its weights."""

from __future__ import annotations

import math
from typing import Any

from .weights import StateDict, count_layers


def infer_swin(weights: StateDict, prefix: str) -> dict[str, Any]:
    """`embed_dim`, `depths`, `num_heads`, `window_size`, `patch_size` and `mlp_ratio` of a `SwinConfig`."""
    patches = weights[f"{prefix}patch_embed.proj.weight"]
    stages = count_layers(weights, rf"^{prefix}layers\.(\d+)\.")
    tables = [weights[f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(stages)]
    return {
        "embed_dim": patches.shape[0],
        "patch_size": patches.shape[-1],
        "depths": [count_layers(weights, rf"^{prefix}layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "mlp_ratio": weights[f"{prefix}layers.0.blocks.0.mlp.fc1.weight"].shape[0] / patches.shape[0],
    }
