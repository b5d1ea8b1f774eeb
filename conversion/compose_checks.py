"""Checks of the parts of a model from their configurations alone, before any weights are downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..modeling_lyrics.configuration_lyrics import LyricsRefinerConfig
from ..modeling_lyrics.modeling_refiner import SUPPORTED_DETECTORS, SUPPORTED_SEGMENTERS
from ..processing_lyrics.processor_checks import TOKENIZER_FILES, find_file

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class PartPlaces:
    """Directories or Hub ids of new parts; `None` for those that are kept.

    Attributes:
        language_model: causal language model with its tokenizer.
        vision: vision encoder with its image processor.
        tagger: `RamForImageTagging`.
        detector: zero-shot detector with its tokenizer.
        segmenter: SAM-family model.
    """

    language_model: Place | None = None
    vision: Place | None = None
    tagger: Place | None = None
    detector: Place | None = None
    segmenter: Place | None = None

    @property
    def refiner(self) -> dict[str, Place]:
        """New parts of the refiner by name."""
        return {name: place for name in ("tagger", "detector", "segmenter") if (place := getattr(self, name))}


@dataclass(frozen=True)
class Changes:
    """What replaced parts mean for a model.

    Attributes:
        new: list of lines about what is new.
        to_train: list of lines about what must be trained.
        vision_feature_layer: layer of the vision encoder that is used.
    """

    new: list[str]
    to_train: list[str]
    vision_feature_layer: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is replaced."""
        return not self.new


def check_parts(model: Place, parts: PartPlaces, is_whole: bool = False) -> Changes:
    """Check that parts fit, from `config.json` files alone.

    Args:
        model: first stage, or whole model whose parts are replaced.
        parts: new parts.
        is_whole: bool, whether `model` must be a whole model.

    Returns:
        What is new, and what must be trained.

    Raises:
        ValueError: a part is of the wrong kind, or of another width than the MQ-Former; the message names both.
        OSError: a place does not exist.
    """
    config = _read_config(model)
    if config.model_type not in ("lyrics", "lyrics_pretraining"):
        raise ValueError(f"{model} is a {config.model_type}, and no Lyrics model.")
    if is_whole and config.model_type == "lyrics_pretraining":
        raise ValueError(
            f"{model} is a first stage, and no whole model whose parts can be replaced: give it as STAGE1, without "
            "--from (`compose` in Python)."
        )
    layer = config.vision_feature_layer
    new, to_train = [], []
    if parts.language_model is not None:
        _check_language_model(parts.language_model)
        new += [f"language model: {parts.language_model}", "projection to its width, with random weights"]
        to_train.append("the projection")
    if parts.vision is not None:
        vision = _vision_config(parts.vision)
        width = config.mqformer_config.encoder_hidden_size
        if vision.hidden_size != width:
            raise ValueError(
                f"The vision encoder {parts.vision} gives features of width {vision.hidden_size}, and the MQ-Former of "
                f"{model} reads width {width}. Choose one of that width, or train a first stage with it."
            )
        layer = -2 if vision.model_type == "clip_vision_model" else -1
        new.append(f"vision encoder: {parts.vision}, hidden state {layer}")
        to_train.append("the MQ-Former, whose visual queries read other features now")
    if parts.refiner:
        new += [f"{name}: {place}" for name, place in parts.refiner.items()]
        to_train += _check_refiner(model, config.mqformer_config.region_hidden_size, parts)
    return Changes(new, to_train, layer)


def _read_config(place: Place) -> Any:
    """Return the configuration of a part.

    Raises:
        OSError: naming the place, which Transformers leaves out where the Hub does not answer.
    """
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except OSError as error:
        if os.path.isdir(place):
            raise
        raise OSError(f"{place} is no folder, and cannot be read from the Hub: {error}") from error


def _check_language_model(place: Place) -> None:
    """Raise a `ValueError` where there is no causal language model, or no tokenizer beside it."""
    config = _read_config(place)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{place} is a {config.model_type}, and no causal language model.")
    names = (*TOKENIZER_FILES, "tokenizer.model")
    if os.path.isdir(place) and not any(os.path.isfile(os.path.join(place, name)) for name in names):
        raise ValueError(f"{place} holds no tokenizer: looked for {', '.join(names)}.")


def _vision_config(place: Place) -> Any:
    """Return the configuration of a vision encoder, or of the one inside a model of images and text."""
    config = _read_config(place)
    config = getattr(config, "vision_config", config)
    if missing := [name for name in ("hidden_size", "image_size") if not hasattr(config, name)]:
        raise ValueError(f"{place} is a {config.model_type}, whose configuration has no {' and no '.join(missing)}.")
    return config


def _check_refiner(model: Place, region_width: int, parts: PartPlaces) -> list[str]:
    """Check new parts of the refiner, and return what must be trained."""
    has_refiner = find_file(model, "config.json", subfolder="refiner") is not None
    if not has_refiner and (parts.detector is None or parts.segmenter is None):
        raise ValueError(f"{model} has no refiner to keep the other parts of: name a detector and a segmenter.")
    configs = {name: _read_config(place) for name, place in parts.refiner.items()}
    kinds = {"tagger": ("ram",), "detector": SUPPORTED_DETECTORS, "segmenter": SUPPORTED_SEGMENTERS}
    for name, config in configs.items():
        if config.model_type not in kinds[name]:
            raise ValueError(
                f"{getattr(parts, name)} is a {config.model_type}; a {name} is one of {', '.join(kinds[name])}."
            )
    old: Any = LyricsRefinerConfig.from_pretrained(model, subfolder="refiner") if has_refiner else None
    described_by = "segmenter" if old is None or old.region_feature_type == "mask" else "detector"
    if described_by not in configs:
        return []
    config = configs[described_by]
    width = 4 + (config.mask_decoder_config.hidden_size if described_by == "segmenter" else config.d_model)
    if width != region_width:
        raise ValueError(
            f"The {described_by} {getattr(parts, described_by)} describes regions by {width} numbers, and the "
            f"MQ-Former of {model} reads {region_width}."
        )
    return ["the MQ-Former, whose grounding queries read other features now"]
