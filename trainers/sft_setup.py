"""What a recipe of the second stage is made of: its model, its processor and its data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, cast

from transformers.utils import logging

from ..modeling_lyrics import LyricsForConditionalGeneration
from ..processing_lyrics import LyricsProcessor
from .common.trainable_parts import TuningArguments, load_model

logger = logging.get_logger(__name__)

MICRO = "micro"


@dataclass
class SFTModelArguments:
    """Where the model of the second stage starts."""

    model: str | None = field(
        default=None,
        metadata={"help": "Directory or Hub id (`lyrics compose` makes one); 'micro' for a tiny random one."},
    )
    processor: str | None = field(default=None, metadata={"help": "Directory or Hub id, if not the model's."})
    mqformer_text: str | None = field(
        default=None,
        metadata={"help": "What the MQ-Former reads: none, instruction, or spatial+instruction (the processor's)."},
    )


def build_sft(
    arguments: SFTModelArguments, training: TuningArguments, with_objects: bool = True, keep: bool = True
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Model and processor of a recipe.

    Args:
        arguments: where they start.
        training: how they are tuned.
        with_objects: whether rows that are drawn on the spot bring their objects; else 'micro' has a refiner.
        keep: write 'micro' into the folder `base` of the run, where its adapter will look for it.

    Raises:
        ValueError: when there is no model.
    """
    if arguments.model is None:
        raise ValueError("no model: give --model DIR or --model HUB_ID; `lyrics compose` makes one.")
    if arguments.model == MICRO:
        from ..assets import random_parts
        from ..datasets_lyrics.toy_data import REGION_WIDTH

        model, processor = random_parts(training.seed, REGION_WIDTH if with_objects else None)
        model.name_or_path = os.path.join(str(training.output_dir), "base")
        if keep and training.process_index == 0:
            model.save_pretrained(model.name_or_path)
            processor.save_pretrained(model.name_or_path)
    else:
        model = load_model(arguments.model, training)
        processor = LyricsProcessor.from_pretrained(arguments.processor or arguments.model)
    if arguments.mqformer_text is not None:
        kept: Any = processor
        kept.mqformer_text = check_mqformer_text(arguments.mqformer_text)
    return cast(LyricsForConditionalGeneration, model), processor


def check_mqformer_text(value: str) -> str:
    """Raise a `ValueError` unless it is one of the processor's choices."""
    known = ("none", "instruction", "spatial+instruction")
    if value not in known:
        raise ValueError(f"mqformer_text must be one of {known}, got {value!r}.")
    return value
