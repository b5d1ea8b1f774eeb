"""Step 2, last part: tagger, detector and segmenter become one refiner, in a processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, MMGroundingDinoForObjectDetection, SamModel

from ....modeling_lyrics import LyricsVisualRefiner, RamForImageTagging
from ....processing_lyrics import LyricsProcessor, VisualObjects
from ..configs import (
    CHAT_TEMPLATE,
    MQFORMER,
    REFINED_VIEW,
    REGION_WIDTH,
    build_micro_bert_tokenizer,
    build_micro_text_tokenizer,
)
from ..evaluate import LEAST_OVERLAP, overlap
from ..vision_encoder import build_image_processor
from ..world.scenes import SHAPES, Split, draw_scene
from .detector import TAG_SEPARATOR, visible_tags

_BOX_THRESHOLD = 0.25  # at 0.2 and 0.3 fewer validation scenes have as many boxes as objects
_MOST_OVERLAP = 0.5  # of two boxes (IoU); at 0.6 fewer scenes have, and at 0.4 characters are lost to what bears them
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
        iou_threshold=_MOST_OVERLAP,
        max_regions=_MOST_REGIONS,
    )
    processor = LyricsProcessor(
        build_image_processor(),
        build_micro_text_tokenizer(),
        build_micro_bert_tokenizer(),
        chat_template=CHAT_TEMPLATE,
        num_query_tokens=MQFORMER["num_visual_queries"] + MQFORMER["num_grounding_queries"],
        mqformer_text="spatial+instruction",
        region_feature_size=REGION_WIDTH + 4,
    )
    processor.attach_refiner(refiner).save_pretrained(out)


def measure_refiner(
    processor: LyricsProcessor, split: Split = "test", count: int = 500, first: int = 1000
) -> dict[str, float]:
    """How well a refiner sees scenes, in percent.

    A shape or character is found when an object has its label and overlaps its box by half (IoU); each object can find
    one thing.

    Args:
        processor: with its refiner.
        split, count: of the scenes.
        first: number of the first. Nobody has looked at those by default; lower ones were seen while the parts were
            trained.

    Returns:
        `shapes_found` and `characters_found` of all there are; `objects_right`, of all objects those that found
        something; `scenes_counted`, with as many shapes as objects; mean `box_overlap` and `mask_overlap` (IoU) of the
        shapes that were found.
    """
    scenes = [draw_scene(split, number) for number in range(first, first + count)]
    seen = processor.refine([scene.image for scene in scenes], batch_size=16, return_masks=True)
    found: dict[bool, list[bool]] = {True: [], False: []}
    right, boxes, masks, counted = [], [], [], []
    for scene, objects in zip(scenes, seen, strict=True):
        free = set(range(len(objects)))
        for index, (tag, box) in enumerate(visible_tags(scene)):
            best, which = _best_match(objects, free, tag, box)
            is_shape = tag in SHAPES
            found[is_shape].append(which is not None)
            if which is not None:
                free.remove(which)
            if is_shape and which is not None and objects.masks is not None:
                drawn = scene.objects[index].mask
                boxes.append(best)
                masks.append((objects.masks[which] & drawn).sum() / (objects.masks[which] | drawn).sum())
        right += [index not in free for index in range(len(objects))]
        counted.append(sum(label in SHAPES for label in objects.labels) == len(scene.objects))
    shares = {
        "shapes_found": found[True],
        "characters_found": found[False],
        "objects_right": right,
        "scenes_counted": counted,
        "box_overlap": boxes,
        "mask_overlap": masks,
    }
    return {name: round(100 * float(np.mean(values)), 1) if values else 0.0 for name, values in shares.items()}


def _best_match(objects: VisualObjects, free: set[int], tag: str, box: Sequence[float]) -> tuple[float, int | None]:
    """The free object of a label that overlaps a box most, and by how much; `None` below half."""
    overlaps = {index: overlap(objects.boxes[index], box) for index in free if objects.labels[index] == tag}
    best = max(overlaps, key=lambda index: overlaps[index], default=None)
    return (0.0, None) if best is None or overlaps[best] < LEAST_OVERLAP else (overlaps[best], best)


def write_measures(folder: Path) -> None:
    """Measure the refiner of a folder on test scenes, and write `results.json` there."""
    results = measure_refiner(LyricsProcessor.from_pretrained(folder))
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
