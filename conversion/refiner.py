"""A visual refiner from the original checkpoints of its three parts."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoTokenizer

from ..modeling_lyrics import LyricsVisualRefiner
from .grounding_dino import load_grounding_dino
from .ram import load_ram
from .sam import load_sam


def load_original_refiner(
    *,
    ram: str | os.PathLike,
    tag_list: str | os.PathLike,
    grounding_dino: str | os.PathLike,
    tokenizer: str | os.PathLike,
    sam: str | os.PathLike | None = None,
    tag_thresholds: str | os.PathLike | None = None,
    chinese_tag_list: str | os.PathLike | None = None,
    ram_image_size: int = 384,
    **config_kwargs: Any,
) -> LyricsVisualRefiner:
    """Load the three `.pth` files into one refiner.

    Args:
        ram, grounding_dino, sam: the original checkpoints; without SAM the refiner gives `"detection"` features.
        tag_list, chinese_tag_list, tag_thresholds: RAM's, one entry per line.
        tokenizer: directory or Hub id of bert-base-uncased's tokenizer.
        ram_image_size: side of RAM's input in pixels.
        config_kwargs: further fields of `LyricsRefinerConfig`.

    Raises:
        ValueError: naming the file that is missing, damaged, unsafe or in another layout.
    """
    tagger = load_ram(
        ram, tag_list, chinese_tag_list=chinese_tag_list, tag_thresholds=tag_thresholds, image_size=ram_image_size
    )
    return LyricsVisualRefiner.from_parts(
        tagger,
        load_grounding_dino(grounding_dino),
        None if sam is None else load_sam(sam),
        AutoTokenizer.from_pretrained(tokenizer),
        **config_kwargs,
    )
