"""A short name for exactly this refiner: its weights and every setting that changes what it sees."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

# Raise it when preprocessing, prompts, selection of objects or region features change their result.
BEHAVIOUR_VERSION = 1


# Where a refiner lies, how it was saved and how much it does at once does not change what it sees.
_IRRELEVANT = frozenset(
    ("_name_or_path", "architectures", "auto_map", "boxes_per_batch", "dtype", "fingerprint", "transformers_version")
)


def relevant_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what does not change the result, on every level."""
    return {
        name: relevant_settings(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in _IRRELEVANT
    }


def fingerprint(model: nn.Module, settings: dict[str, Any]) -> str:
    """The SHA-256 of `settings` (JSON) and of all weights and buffers of `model`, in the dtype they have."""
    digest = hashlib.sha256()
    digest.update(json.dumps([BEHAVIOUR_VERSION, settings], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
