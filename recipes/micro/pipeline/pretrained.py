"""The shipped parts in place of the shared steps: the two stages can be trained without the hours before them."""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ....assets import MICRO_CHECKPOINT, MICRO_LANGUAGE_MODEL
from ....modeling_lyrics import LyricsForConditionalGeneration
from ....processing_lyrics import LyricsProcessor
from ..configs import build_micro_text_tokenizer
from ..vision_encoder import build_image_processor
from .steps import FINISHED, Workshop, recorded_settings

_TAKEN = ("backbone", "vision", "tagger", "detector", "segmenter", "language", "refiner")


def take_shipped(shop: Workshop) -> None:
    """Write the shipped parts where the shared steps leave theirs, as finished; once they are there, nothing.

    Weights are those of the steps, rounded to float16. What only leads to others, as the backbone does, is not there.

    Raises:
        ValueError: when a step of the folder was trained there.
    """
    marks = {step: shop.shared(step) / FINISHED for step in _TAKEN}
    taken = {step for step, mark in marks.items() if mark.is_file() and "shipped" in json.loads(mark.read_text())}
    if trained := [step for step in _TAKEN if step not in taken and shop.shared(step).exists()]:
        raise ValueError(f"{shop.out} holds {', '.join(trained)} of its own: take another folder for the shipped ones.")
    if len(taken) == len(_TAKEN):
        return
    for step in _TAKEN:
        shop.shared(step).mkdir(parents=True, exist_ok=True)
    _write_parts(shop)
    for step, mark in marks.items():
        finished = {"seconds": 0, "settings": recorded_settings(shop, step), "shipped": True}
        mark.write_text(json.dumps(finished, indent=2) + "\n")


def _write_parts(shop: Workshop) -> None:
    LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).save_pretrained(shop.shared("refiner"))
    model: Any = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, dtype=torch.float32)
    vision = shop.shared("vision") / "model"
    model.model.vision_model.save_pretrained(vision)
    build_image_processor().save_pretrained(vision)
    language = shop.shared("language") / "model"
    AutoModelForCausalLM.from_pretrained(MICRO_LANGUAGE_MODEL, dtype=torch.float32).save_pretrained(language)
    build_micro_text_tokenizer().save_pretrained(language)
