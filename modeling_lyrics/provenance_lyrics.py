"""Where an answer comes from: which weights, which refiner with which thresholds, what it saw, and which software."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .fingerprint import fingerprint, relevant_settings

_PACKAGES = {"lyrics": "ziya-lyrics", "transformers": "transformers", "torch": "torch", "tokenizers": "tokenizers"}
_THRESHOLDS = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")


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
