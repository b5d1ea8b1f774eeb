"""Visual refiner made of the original checkpoints of RAM, Grounding DINO and SAM."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import AutoTokenizer

from ..modeling_lyrics import LyricsVisualRefiner
from .grounding_dino import load_grounding_dino
from .original_grounding_dino import load_grounding_dino_package
from .original_packages import OriginalPackagesRefiner, load_ram_package, load_sam_package
from .ram import load_ram
from .sam import load_sam
from .weights import FilePath

_PARTS = ("ram", "grounding_dino", "sam")


def load_original_refiner(
    *,
    ram: FilePath,
    tag_list: FilePath,
    grounding_dino: FilePath,
    tokenizer: FilePath,
    sam: FilePath | None = None,
    tag_thresholds: FilePath | None = None,
    chinese_tag_list: FilePath | None = None,
    ram_image_size: int = 384,
    packages: Collection[str] = (),
    **config_kwargs: Any,
) -> LyricsVisualRefiner:
    """Load the three `.pth` files into one refiner.

    Args:
        ram: original checkpoint of RAM.
        tag_list: file with RAM's tags, one per line.
        grounding_dino: original checkpoint of Grounding DINO.
        tokenizer: directory or Hub id of the tokenizer of bert-base-uncased.
        sam: original checkpoint of SAM; without it, the refiner's region features are of the type `"detection"`.
        tag_thresholds: file with RAM's thresholds, one per line.
        chinese_tag_list: file with RAM's tags in Chinese, one per line.
        ram_image_size: side of RAM's input in pixels.
        packages: parts that run on their original package instead of Transformers' classes: `"ram"`
            (recognize-anything), `"grounding_dino"` (groundingdino-py), `"sam"` (segment-anything). Results are the
            same, but such a refiner cannot be saved.
        config_kwargs: further fields of `LyricsRefinerConfig`.

    Returns:
        The refiner in evaluation mode.

    Raises:
        ImportError: if one of `packages` cannot be imported; the message says how to install it.
        ValueError: if a file is missing, damaged, unsafe or in another layout, or a package is unknown.
    """
    if unknown := sorted(set(packages) - set(_PARTS)):
        raise ValueError(f"`packages` has no part {', '.join(unknown)}; the parts are {', '.join(_PARTS)}.")
    read_tagger = load_ram_package if "ram" in packages else load_ram
    tagger: Any = read_tagger(
        ram, tag_list, chinese_tag_list=chinese_tag_list, tag_thresholds=tag_thresholds, image_size=ram_image_size
    )
    bert_tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    detector: Any = (
        load_grounding_dino_package(grounding_dino, bert_tokenizer)
        if "grounding_dino" in packages
        else load_grounding_dino(grounding_dino)
    )
    segmenter: Any = None
    if sam is not None:
        segmenter = load_sam_package(sam) if "sam" in packages else load_sam(sam)
    refiner_class = OriginalPackagesRefiner if packages else LyricsVisualRefiner
    return refiner_class.from_parts(tagger, detector, segmenter, bert_tokenizer, **config_kwargs)
