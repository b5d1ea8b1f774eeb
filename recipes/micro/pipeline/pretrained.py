"""Pretrained parts from the package in place of the shared steps, so that only the two stages have to be trained."""

from __future__ import annotations

import json

import torch
from transformers import AutoModelForCausalLM

from ....assets import MICRO_CHECKPOINT, MICRO_LANGUAGE_MODEL
from ....modeling_lyrics import LyricsForConditionalGeneration
from ....processing_lyrics import LyricsProcessor
from ..common.run_folders import FINISHED, RunFolders
from ..configs import build_image_processor, build_micro_text_tokenizer

_REPLACED = ("backbone", "vision", "tagger", "detector", "segmenter", "language", "refiner")


def write_pretrained(folders: RunFolders) -> None:
    """Write the pretrained parts into the folders of the shared steps, and mark these as finished.

    Nothing happens if they are there already. Their weights are those of the steps, rounded to float16. Steps that only
    other steps need, such as the backbone, leave no model.

    Raises:
        ValueError: a step was trained in these folders.
    """
    marks = {step: folders.folder(step) / FINISHED for step in _REPLACED}
    done = {step for step, mark in marks.items() if mark.is_file() and "shipped" in json.loads(mark.read_text())}
    if trained := [step for step in _REPLACED if step not in done and folders.folder(step).exists()]:
        raise ValueError(
            f"{folders.out} holds results of its own for {', '.join(trained)}. Choose another folder for the "
            "pretrained parts."
        )
    if len(done) == len(_REPLACED):
        return
    for step in _REPLACED:
        folders.folder(step).mkdir(parents=True, exist_ok=True)
    LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).save_pretrained(folders.folder("refiner"))
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, dtype=torch.float32)
    model.model.vision_model.save_pretrained(folders.model("vision"))
    build_image_processor().save_pretrained(folders.model("vision"))
    language_model = AutoModelForCausalLM.from_pretrained(
        MICRO_LANGUAGE_MODEL, dtype=torch.float32, trust_remote_code=False
    )
    language_model.save_pretrained(folders.model("language"))
    build_micro_text_tokenizer().save_pretrained(folders.model("language"))
    for step in _REPLACED:
        folders.mark_finished(step, 0, folders.settings(step), shipped=True)
