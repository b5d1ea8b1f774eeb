"""Replacement of the tagger, the detector or the segmenter of a visual refiner."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForMaskGeneration, AutoModelForZeroShotObjectDetection, AutoTokenizer

from ..modeling_lyrics import LyricsVisualRefiner
from ..modeling_lyrics.modeling_ram import RamForImageTagging
from .compose_checks import PartPlaces

_OF_DETECTOR = ("familiar_score", "detector_mean", "detector_std")  # they mean nothing for another one
_SETTINGS = (
    "region_feature_type",
    "box_threshold",
    "text_threshold",
    "iou_threshold",
    "max_regions",
    "max_prompt_tokens",
    "tag_separator",
    "detector_shortest_edge",
    "detector_longest_edge",
    "tile_aspect_ratio",
    "tile_overlap",
    "resize_backend",
    "boxes_per_batch",
    "image_mean",
    "image_std",
    *_OF_DETECTOR,
)


def replace_refiner_parts(refiner: Any | None, parts: PartPlaces) -> LyricsVisualRefiner:
    """Return a refiner with new parts; it shares the others with the old one, and has its settings.

    Args:
        refiner: old `LyricsVisualRefiner`, or `None` where all parts are new.
        parts: places of the new parts, which `check_parts` has checked.
    """
    tagger, detector, segmenter, tokenizer = (
        getattr(refiner, name, None) for name in ("tagger", "detector", "segmenter", "tokenizer")
    )
    settings = {} if refiner is None else {name: getattr(refiner.config, name) for name in _SETTINGS}
    loading: Any = {"trust_remote_code": False}
    if parts.tagger is not None:
        tagger = RamForImageTagging.from_pretrained(parts.tagger)
    if parts.detector is not None:
        detector = AutoModelForZeroShotObjectDetection.from_pretrained(parts.detector, **loading)
        tokenizer = AutoTokenizer.from_pretrained(parts.detector, **loading)
        settings = {name: value for name, value in settings.items() if name not in _OF_DETECTOR}
    if parts.segmenter is not None:
        segmenter = AutoModelForMaskGeneration.from_pretrained(parts.segmenter, **loading)
    made: Any = (tagger, detector, segmenter, tokenizer)
    return LyricsVisualRefiner.from_parts(*made, **settings)
