"""A first-stage checkpoint and a language model -> a model for the second stage."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoTokenizer

from ..modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from ..processing_lyrics import LyricsProcessor


def compose(
    stage1: str | os.PathLike,
    language_model: str | os.PathLike,
    *,
    refiner_of: str | os.PathLike | None = None,
    dtype: Any = "auto",
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Join what the first stage has trained with a language model; the projection between them is new.

    Args:
        stage1: a directory or Hub id of a `LyricsForPreTraining`, with its processor.
        language_model: a directory or Hub id of a causal language model, with its tokenizer.
        refiner_of: a checkpoint whose refiner goes with the model; by default that of the first stage, if it has one.
        dtype: of the language model; the first stage follows it.

    Returns:
        The model in evaluation mode, and its processor, whose chat template is Vicuna's.

    Raises:
        ValueError: when refiner and first stage do not fit together.
    """
    from transformers import AutoModelForCausalLM

    text: Any = AutoModelForCausalLM.from_pretrained(language_model, dtype=dtype)
    first = LyricsForPreTraining.from_pretrained(stage1, dtype=text.dtype)
    old = LyricsProcessor.from_pretrained(stage1)
    processor = LyricsProcessor(
        old.image_processor,
        AutoTokenizer.from_pretrained(language_model),
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
