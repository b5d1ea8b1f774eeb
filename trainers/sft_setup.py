"""Model and processor of the second stage, built from plain settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from transformers.utils import logging

from ..modeling_lyrics import LyricsForConditionalGeneration
from ..processing_lyrics import LyricsProcessor
from ..processing_lyrics.model_inputs import MQFormerText
from ..utils.model_folder import write_model
from .common.data_arguments import require_one_of
from .common.trainable_parts import TuningArguments, load_model

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.get_logger(__name__)

MICRO = "micro"


@dataclass
class SFTModelArguments:
    """Checkpoints that the second stage starts from."""

    model: str | None = field(default=None, metadata={"help": "Directory or Hub id; 'micro' for a tiny random model."})
    processor: str | None = field(default=None, metadata={"help": "Directory or Hub id, if it is not the model's."})
    mqformer_text: str | None = field(
        default=None, metadata={"help": "none, instruction or spatial+instruction; by default the processor's."}
    )


def build_sft(
    arguments: SFTModelArguments, training: TuningArguments, with_objects: bool = True, keep: bool = True
) -> tuple[LyricsForConditionalGeneration | PeftModel, LyricsProcessor]:
    """Build the model and the processor of a recipe.

    Args:
        arguments: checkpoints to start from.
        training: training arguments.
        with_objects: for the model 'micro', whether its rows are drawn with their objects, so that it needs no refiner.
        keep: for the model 'micro', whether to save it to the run's folder `base`, where its adapter expects it.

    Raises:
        ValueError: if there is no model, or `mqformer_text` is unknown.
    """
    if arguments.model is None:
        raise ValueError("no model: give --model DIR or --model HUB_ID; `lyrics compose` makes one.")
    if arguments.model == MICRO:
        from ..assets import random_parts
        from ..datasets_lyrics.toy_data import REGION_WIDTH

        model, processor = random_parts(training.seed, REGION_WIDTH if with_objects else None)
        model.name_or_path = os.path.join(str(training.output_dir), "base")
        if keep and training.process_index == 0:
            with write_model(model.name_or_path) as folder:
                model.save_pretrained(folder)
                processor.save_pretrained(folder)
    else:
        model = load_model(arguments.model, training)
        processor = LyricsProcessor.from_pretrained(arguments.processor or arguments.model)
    if arguments.mqformer_text is not None:
        require_one_of("mqformer_text", arguments.mqformer_text, get_args(MQFormerText))
        processor.mqformer_text = arguments.mqformer_text  # pyright: ignore[reportAttributeAccessIssue]
    return model, processor
