"""Where an answer comes from: which weights, which refiner with which thresholds, what it saw, and which software."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

_PACKAGES = {"lyrics": "ziya-lyrics", "transformers": "transformers", "torch": "torch", "tokenizers": "tokenizers"}
_THRESHOLDS = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")

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


def describe_provenance(model: Any, processor: Any, visual_objects: Any = None) -> dict[str, Any]:
    """What is needed to get the same answer again, as JSON has it.

    All weights of the model are read for its fingerprint, which takes seconds at full size.

    Args:
        model: that answered.
        processor: its `LyricsProcessor`.
        visual_objects: what was seen in the picture, or `None`.

    Returns:
        `model` (type, dtype, fingerprint), `refiner` (fingerprint and thresholds, or `None` without one), `tags`,
        `objects` (labels, scores and boxes) and `versions`.
    """
    return {
        "model": {
            "type": model.config.model_type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "fingerprint": fingerprint(model, {"config": relevant_settings(model.config.to_dict())}),
        },
        "refiner": _describe_refiner(processor),
        "tags": [] if visual_objects is None else list(visual_objects.tags),
        "objects": [] if visual_objects is None else visual_objects.summary(),
        "versions": {name: _version(package) for name, package in _PACKAGES.items()}
        | {"python": platform.python_version()},
    }


def _describe_refiner(processor: Any) -> dict[str, Any] | None:
    config = processor.refiner_config
    if config is None and processor.refiner_fingerprint is None:
        return None
    if config is None:
        return {"fingerprint": processor.refiner_fingerprint, "thresholds": None}
    tagger = config.tagger_config
    threshold = None if tagger is None else tagger.threshold
    thresholds = {name: getattr(config, name) for name in _THRESHOLDS}
    thresholds["tag_threshold"] = "one per tag" if isinstance(threshold, list) else threshold
    loaded = processor.refiner.fingerprint() if processor.refiner_loaded else config.fingerprint
    return {"fingerprint": loaded, "thresholds": thresholds}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # this code may come with a checkpoint
        return None


__all__ = ["describe_provenance"]
