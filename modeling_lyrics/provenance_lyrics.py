"""Provenance of an answer: fingerprints of model and refiner, thresholds, objects, and software versions."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

_PACKAGES = {"lyrics": "ziya-lyrics", "transformers": "transformers", "torch": "torch", "tokenizers": "tokenizers"}
_THRESHOLDS = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")

# Increase it when preprocessing, prompts, selection of objects or region features give other results.
BEHAVIOUR_VERSION = 1

# The place of a refiner, the way it was saved, and its batch sizes do not change its results.
_IRRELEVANT = frozenset(
    ("_name_or_path", "architectures", "auto_map", "boxes_per_batch", "dtype", "fingerprint", "transformers_version")
)

_MAPPINGS = frozenset(("id2label", "label2id"))  # dictionaries of data, and not of settings


def relevant_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the settings that do not change a result, on every level."""
    return {
        name: relevant_settings(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in _IRRELEVANT
    }


def has_new_settings(settings: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Return whether a configuration has settings that the release of Transformers that saved it did not know.

    Args:
        settings: dictionary of the configuration, as `to_dict` returns it.
        saved: dictionary of its file. The settings that every configuration has may be missing there.
    """
    if (settings.keys() - saved.keys()) - PreTrainedConfig().to_dict().keys():
        return True
    nested = [name for name in settings.keys() & saved.keys() if isinstance(settings[name], dict)]
    return any(has_new_settings(settings[name], saved[name]) for name in nested if name not in _MAPPINGS)


def fingerprint(model: nn.Module, settings: dict[str, Any]) -> str:
    """Return the SHA-256 of a model's settings, weights and buffers.

    Args:
        model: module; its weights count in the dtype that they have.
        settings: dictionary that is written as JSON.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([BEHAVIOUR_VERSION, settings], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_provenance(model: PreTrainedModel, processor: Any, visual_objects: Any = None) -> dict[str, Any]:
    """Return what is needed to reproduce an answer, as a dictionary that can be written as JSON.

    All weights of the model are read for its fingerprint, which takes seconds at full size.

    Args:
        model: model that answered.
        processor: `LyricsProcessor` of the model.
        visual_objects: `VisualObjects` of the image, or `None`.

    Returns:
        Dictionary of `model` (type, dtype, fingerprint), `refiner` (fingerprint and thresholds, or `None`), `tags`,
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
    """Return fingerprint and thresholds of a processor's refiner."""
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
    """Return the version of an installed package, or `None`."""
    try:
        return version(package)
    except PackageNotFoundError:  # this code may run as remote code, without the package
        return None


__all__ = ["describe_provenance"]
