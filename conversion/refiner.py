"""A visual refiner from the original checkpoints of its three parts."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from transformers import AutoTokenizer

from ..modeling_lyrics import LyricsVisualRefiner
from .grounding_dino import load_grounding_dino
from .original_grounding_dino import load_grounding_dino_package
from .original_packages import OriginalPackagesRefiner, load_ram_package, load_sam_package
from .ram import load_ram
from .sam import load_sam

_PARTS = ("ram", "grounding_dino", "sam")


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
    packages: Collection[str] = (),
    **config_kwargs: Any,
) -> LyricsVisualRefiner:
    """Load the three `.pth` files into one refiner.

    Args:
        ram, grounding_dino, sam: the original checkpoints; without SAM the refiner gives `"detection"` features.
        tag_list, chinese_tag_list, tag_thresholds: RAM's, one entry per line.
        tokenizer: directory or Hub id of bert-base-uncased's tokenizer.
        ram_image_size: side of RAM's input in pixels.
        packages: which parts run on the package that they came with instead of Transformers' classes: some of `"ram"`
            (recognize-anything), `"grounding_dino"` (groundingdino-py) and `"sam"` (segment-anything). They compute the
            same; such a refiner is not saved.
        config_kwargs: further fields of `LyricsRefinerConfig`.

    Raises:
        ImportError: when one of `packages` cannot be imported, with the way to install it.
        ValueError: naming the file that is missing, damaged, unsafe or in another layout, or an unknown package.
    """
    if unknown := sorted(set(packages) - set(_PARTS)):
        raise ValueError(f"There is no part {', '.join(unknown)} to run on its own package; the parts are {_PARTS}.")
    read_tagger = load_ram_package if "ram" in packages else load_ram
    tagger: Any = read_tagger(
        ram, tag_list, chinese_tag_list=chinese_tag_list, tag_thresholds=tag_thresholds, image_size=ram_image_size
    )
    words = AutoTokenizer.from_pretrained(tokenizer)
    detector: Any = (
        load_grounding_dino_package(grounding_dino, words)
        if "grounding_dino" in packages
        else load_grounding_dino(grounding_dino)
    )
    segmenter: Any = None
    if sam is not None:
        segmenter = load_sam_package(sam) if "sam" in packages else load_sam(sam)
    refiner_class = OriginalPackagesRefiner if packages else LyricsVisualRefiner
    return refiner_class.from_parts(tagger, detector, segmenter, words, **config_kwargs)
