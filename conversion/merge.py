"""Merging of an adapter and its base model to one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..modeling_lyrics import LyricsForConditionalGeneration
from ..modeling_lyrics.adapter_checks import find_base_model, load_peft_model
from ..modeling_lyrics.checkpoint_files import read_object
from ..processing_lyrics import LyricsProcessor


def merge_adapter(
    adapter: str | os.PathLike[str], *, base_model: str | None = None, dtype: torch.dtype | str = "auto"
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Load an adapter and its base model, and merge the adapter's weights into the model.

    Args:
        adapter: directory that a trainer of the second stage, of preferences or of rewards wrote.
        base_model: directory or Hub id of the base model; by default where it was during training.
        dtype: data type of the weights.

    Returns:
        The merged model in evaluation mode, and the adapter's processor with the base model's refiner, if it has one.

    Raises:
        ValueError: if the directory has no adapter, the adapter is incomplete, or it belongs to another base model.
    """
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} is no adapter: it has no adapter_config.json.")
    if base_model is None:
        place, revision = find_base_model(folder) or ("", "main")
    else:
        place, revision = base_model, read_object(folder / "adapter_config.json").get("revision")
    model = LyricsForConditionalGeneration.from_pretrained(place, revision=revision or "main", dtype=dtype)
    tuned: Any = load_peft_model(model, folder)
    merged = tuned.merge_and_unload().eval()
    base_processor = LyricsProcessor.from_pretrained(place, revision=revision or "main")
    refiner = base_processor.refiner if base_processor.has_refiner else False
    return merged, LyricsProcessor.from_pretrained(folder, refiner=refiner)
