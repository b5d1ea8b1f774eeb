"""Step 2, last part: tagger, detector and segmenter become one refiner, in a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, MMGroundingDinoForObjectDetection, SamModel

from ...modeling_lyrics import LyricsVisualRefiner, RamForImageTagging
from ...processing_lyrics import LyricsProcessor
from .detector import TAG_SEPARATOR
from .parts import (
    MQFORMER,
    REFINED_VIEW,
    REGION_WIDTH,
    build_micro_bert_tokenizer,
    build_micro_text_tokenizer,
)
from .vision import build_image_processor

_BOX_THRESHOLD = 0.2  # where most validation scenes have as many boxes as objects
_MOST_REGIONS = 24  # nine objects, as many characters at most, and some in vain


def assemble_processor(tagger: Path, detector: Path, segmenter: Path, out: Path) -> None:
    """Write a processor with its refiner.

    Args:
        tagger, detector, segmenter: folders that the other parts of the step wrote.
        out: a folder.
    """
    refiner: Any = LyricsVisualRefiner.from_parts(
        RamForImageTagging.from_pretrained(tagger),
        MMGroundingDinoForObjectDetection.from_pretrained(detector),
        SamModel.from_pretrained(segmenter),
        AutoTokenizer.from_pretrained(detector),
        tag_separator=TAG_SEPARATOR,
        detector_shortest_edge=REFINED_VIEW,
        detector_longest_edge=2 * REFINED_VIEW,
        box_threshold=_BOX_THRESHOLD,
        text_threshold=_BOX_THRESHOLD,
        max_regions=_MOST_REGIONS,
    )
    processor = LyricsProcessor(
        build_image_processor(),
        build_micro_text_tokenizer(),
        build_micro_bert_tokenizer(),
        num_query_tokens=MQFORMER["num_visual_queries"] + MQFORMER["num_grounding_queries"],
        mqformer_text="spatial+instruction",
        region_feature_size=REGION_WIDTH + 4,
    )
    processor.attach_refiner(refiner).save_pretrained(out)
