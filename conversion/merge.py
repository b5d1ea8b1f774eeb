"""An adapter and its base model -> one model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..modeling_lyrics import LyricsForConditionalGeneration
from ..modeling_lyrics.adapter_checks import ADAPTER_FILE, check_adapter
from ..processing_lyrics import LyricsProcessor


def merge_adapter(
    adapter: str | os.PathLike, *, base_model: str | None = None, dtype: Any = "auto"
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Load an adapter and its base model, and put the first into the second.

    Args:
        adapter: a directory that `LyricsSFTTrainer` wrote.
        base_model: where the base model lies now, if not where it was.
        dtype: of the weights.

    Returns:
        The model without adapters, in evaluation mode, and the adapter's processor with the base model's refiner, where
        that has one.

    Raises:
        ValueError: when the directory is no adapter, lacks its connector, or belongs to another base model.
    """
    from peft import PeftModel

    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} is no adapter: it has no adapter_config.json.")
    settings = json.loads((folder / "adapter_config.json").read_text())
    place, revision = base_model or settings["base_model_name_or_path"], settings.get("revision")
    if (folder / ADAPTER_FILE).is_file():
        place = base_model or json.loads((folder / ADAPTER_FILE).read_text())["base_model"]
    if not place:
        raise ValueError(f"{folder} was trained on a model in memory: say where that was saved, as the base model.")
    model = LyricsForConditionalGeneration.from_pretrained(place, revision=revision or "main", dtype=dtype)
    check_adapter(model, folder)
    tuned: Any = PeftModel.from_pretrained(model, str(folder))
    merged: Any = tuned.merge_and_unload()
    of_base = LyricsProcessor.from_pretrained(place)
    processor = LyricsProcessor.from_pretrained(folder, refiner=of_base.refiner if of_base.has_refiner else False)
    return merged.eval(), processor
