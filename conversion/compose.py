"""Composition of models for the second stage: from a first stage and a language model, or with parts replaced."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from ..modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from ..processing_lyrics import LyricsProcessor
from .chat_template import choose_template, stop_token_ids
from .compose_checks import PartPlaces, Place, check_parts
from .image_processor import build_image_processor
from .refiner_parts import replace_refiner_parts

_SAME = 0.02  # largest difference of logits, as a share of the largest one; bfloat16 has 8 bits


def compose(
    stage1: Place,
    language_model: Place,
    *,
    refiner_of: Place | None = None,
    dtype: torch.dtype | str = "auto",
    chat_template: Place | None = None,
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Connect the vision side of a first-stage checkpoint with a language model by a new projection.

    Args:
        stage1: directory or Hub id of a `LyricsForPreTraining`, with its processor.
        language_model: directory or Hub id of a causal language model, with its tokenizer.
        refiner_of: checkpoint whose refiner the processor gets; by default that of the first stage, if it has one.
        dtype: data type of the whole model; by default that of the language model's checkpoint.
        chat_template: `"own"`, the language model's, which then takes images; `"vicuna"`; or a Jinja file. By default
            the language model's own, if it has one, and Vicuna's otherwise.

    Returns:
        The model in evaluation mode, and its processor. Generation stops at every token that the language model, its
        tokenizer or the chat template end an answer with.

    Raises:
        ValueError: the parts do not fit, the chat template takes no images, or the language model does something with
            its logits that a Lyrics model does not.
    """
    check_parts(stage1, PartPlaces(language_model=language_model))
    old = LyricsProcessor.from_pretrained(stage1)
    processor = _with_tokenizer(old, language_model, chat_template)
    if refiner_of is not None:
        processor.share_refiner_of(LyricsProcessor.from_pretrained(refiner_of))
    elif old.has_refiner:
        processor.attach_refiner(old.refiner)
    text = _load_language_model(language_model, dtype)
    first = LyricsForPreTraining.from_pretrained(stage1, dtype=text.dtype)
    model = _join(
        first.model.vision_model, first.model.mqformer, text, processor, layer=first.config.vision_feature_layer
    )
    return model, processor


def replace_parts(
    model: Place,
    parts: PartPlaces,
    *,
    dtype: torch.dtype | str = "auto",
    chat_template: Place | None = None,
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Replace parts of a whole model, and keep the others.

    Args:
        model: directory or Hub id of a `LyricsForConditionalGeneration`, with its processor.
        parts: places of the new parts. With a new language model, the projection is new too.
        dtype: data type of the model; by default that of the language model's checkpoint.
        chat_template: argument of `compose`, for a new language model.

    Returns:
        The model in evaluation mode, and its processor.

    Raises:
        ValueError: a part does not fit the others; the message names both. Weights are loaded after that check.
    """
    changes = check_parts(model, parts, is_whole=True)
    if changes.is_empty:
        raise ValueError("No part is replaced: name a new language model, vision encoder, tagger, ...")
    if chat_template is not None and parts.language_model is None:
        raise ValueError("A chat template is chosen with a new language model: name one.")
    processor = LyricsProcessor.from_pretrained(model)
    text = None
    if parts.language_model is not None:
        old, processor = processor, _with_tokenizer(processor, parts.language_model, chat_template)
        if old.has_refiner:
            processor.attach_refiner(old.refiner)
        text = _load_language_model(parts.language_model, dtype)
    loaded: Any = LyricsForConditionalGeneration.from_pretrained(model, dtype=dtype if text is None else text.dtype)
    if parts.vision is not None:
        vision: Any = AutoModel.from_pretrained(parts.vision, dtype=loaded.dtype, trust_remote_code=False)
        vision = getattr(vision, "vision_model", vision)
        loaded.model.vision_model, loaded.config.vision_config = vision.eval(), vision.config
        loaded.config.vision_feature_layer = changes.vision_feature_layer
        processor.image_processor = build_image_processor(parts.vision, vision.config)
    if parts.refiner:
        processor.refiner_fingerprint = None
        processor.attach_refiner(replace_refiner_parts(processor.refiner if processor.has_refiner else None, parts))
    if text is not None:
        layer = loaded.config.vision_feature_layer
        loaded = _join(loaded.model.vision_model, loaded.model.mqformer, text, processor, layer=layer)
    return loaded.eval(), processor


def _with_tokenizer(old: LyricsProcessor, language_model: Place, chat_template: Place | None) -> LyricsProcessor:
    """Return a processor without refiner that has the tokenizer and the template of another language model."""
    tokenizer = AutoTokenizer.from_pretrained(language_model, trust_remote_code=False)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"The tokenizer of {language_model} is a {type(tokenizer).__name__}, and Lyrics needs a fast one, which "
            "knows the place of each token in the text: add its tokenizer.json."
        )
    template = choose_template(chat_template, tokenizer)
    tokenizer.chat_template = template  # as it is loaded again
    return LyricsProcessor(
        old.image_processor,
        tokenizer,
        old.mqformer_tokenizer,
        chat_template=template,
        num_query_tokens=old.num_query_tokens,
        mqformer_text=old.mqformer_text,
        spatial_text=old.spatial_text,
        region_feature_size=old.region_feature_size,
        max_image_pixels=old.max_image_pixels,
        refiner_fingerprint=old.refiner_fingerprint,
    )


def _load_language_model(language_model: Place, dtype: torch.dtype | str) -> Any:
    return AutoModelForCausalLM.from_pretrained(language_model, dtype=dtype, trust_remote_code=False)


def _join(vision: Any, mqformer: Any, text: Any, processor: LyricsProcessor, layer: int) -> Any:
    """Return the model of three parts and a new projection."""
    stops = stop_token_ids(text, processor)
    ids: Any = torch.arange(1, 9)[None] % text.config.get_text_config().vocab_size
    with torch.inference_mode():
        expected = text.eval()(input_ids=ids).logits
    model: Any = LyricsForConditionalGeneration.from_parts(
        vision, mqformer, text, vision_feature_layer=layer, image_token_id=processor.image_token_id
    )
    with torch.inference_mode():
        given = model(input_ids=ids).logits
    if not (given - expected).abs().max() <= _SAME * expected.abs().max():
        raise ValueError(
            f"A {text.config.model_type} computes other logits on its own than as a part of this model: it changes "
            "them in a way that Lyrics does not know. Choose another language model."
        )
    try:
        model.generate(input_ids=ids, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    except (AttributeError, TypeError, ValueError) as error:  # such as of a cache of its own
        raise ValueError(
            f"A {text.config.model_type} cannot generate as a part of this model: {error} Choose another language "
            "model."
        ) from error
    settings: Any = model.generation_config
    settings.eos_token_id = stops[0] if len(stops) == 1 else stops or None
    if processor.tokenizer.eos_token is None and stops:  # training asks the tokenizer for it
        processor.tokenizer.eos_token = processor.tokenizer.convert_ids_to_tokens(stops[0])
    for name in ("bos_token_id", "pad_token_id"):
        if getattr(settings, name) is None:
            setattr(settings, name, getattr(processor.tokenizer, name))
    return model
