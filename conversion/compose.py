"""Composition of a first-stage checkpoint and a language model to a model for the second stage."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from ..processing_lyrics import LyricsProcessor


def compose(
    stage1: str | os.PathLike[str],
    language_model: str | os.PathLike[str],
    *,
    refiner_of: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | str = "auto",
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Connect the vision side of a first-stage checkpoint with a language model by a new projection.

    Args:
        stage1: directory or Hub id of a `LyricsForPreTraining`, with its processor.
        language_model: directory or Hub id of a causal language model, with its tokenizer.
        refiner_of: checkpoint whose refiner the processor gets; by default that of the first stage, if it has one.
        dtype: data type of the whole model; by default that of the language model's checkpoint.

    Returns:
        The model in evaluation mode, and its processor with Vicuna's chat template.

    Raises:
        ValueError: if the refiner does not fit the first stage, or the language model is none.
    """
    text = _load_language_model(language_model, dtype)
    first = LyricsForPreTraining.from_pretrained(stage1, dtype=text.dtype)
    old = LyricsProcessor.from_pretrained(stage1)
    processor = LyricsProcessor(
        old.image_processor,
        AutoTokenizer.from_pretrained(language_model, trust_remote_code=False),
        old.mqformer_tokenizer,
        num_query_tokens=first.config.mqformer_config.num_queries,
        mqformer_text=old.mqformer_text,
        region_feature_size=first.config.mqformer_config.region_hidden_size,
        max_image_pixels=old.max_image_pixels,
        refiner_fingerprint=old.refiner_fingerprint,
    )
    with_refiner = old if refiner_of is None else LyricsProcessor.from_pretrained(refiner_of)
    if with_refiner.has_refiner:
        processor.attach_refiner(with_refiner.refiner)
    model = LyricsForConditionalGeneration.from_parts(
        first.model.vision_model,
        first.model.mqformer,
        text,
        vision_feature_layer=first.config.vision_feature_layer,
        image_token_id=processor.image_token_id,
    )
    return model, processor


def _load_language_model(place: str | os.PathLike[str], dtype: torch.dtype | str) -> Any:
    """Load a causal language model; raise a `ValueError` that names the kind of a model of another kind."""
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{os.fspath(place)} is no causal language model: its model_type is {config.model_type!r}.")
    return AutoModelForCausalLM.from_pretrained(place, config=config, dtype=dtype, trust_remote_code=False)
