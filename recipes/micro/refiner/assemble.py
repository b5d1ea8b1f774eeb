"""Step 2, last part: assemble tagger, detector and segmenter into a refiner, and measure it on scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import AutoTokenizer, MMGroundingDinoForObjectDetection, SamModel

from ....modeling_lyrics import LyricsVisualRefiner, RamForImageTagging
from ....processing_lyrics import LyricsProcessor, VisualObjects
from ....trainers.rewards import box_iou
from ..common.run_folders import RunFolders
from ..configs import (
    CHAT_TEMPLATE,
    MQFORMER,
    REFINER_IMAGE_SIZE,
    REGION_WIDTH,
    build_image_processor,
    build_micro_bert_tokenizer,
    build_micro_text_tokenizer,
)
from ..world.cases import MIN_IOU
from ..world.objects import SHAPES, Scene
from ..world.scenes import draw_test_scene
from .detector import TAG_SEPARATOR, visible_tags

_BOX_THRESHOLD = 0.25  # with 0.2 and 0.3 fewer validation scenes have as many boxes as objects
_IOU_THRESHOLD = 0.5  # with 0.6 too many boxes remain; with 0.4 characters are dropped, inside the box of their object
_FAMILIAR_SCORE = 0.55  # below: up to 2 of 100 drawings (150 of each kind); above: 2 of 31 photographs and patterns
_TILE_ASPECT_RATIO = 1.2  # the parts were trained on square scenes
_MAX_REGIONS = 24  # nine objects, at most as many characters, and some false detections


def assemble_refiner(folders: RunFolders) -> None:
    """Write a processor with its refiner, and how well it detects objects of test scenes as `results.json`."""
    refiner: Any = LyricsVisualRefiner.from_parts(
        RamForImageTagging.from_pretrained(folders.model("tagger")),
        MMGroundingDinoForObjectDetection.from_pretrained(folders.model("detector")),
        SamModel.from_pretrained(folders.model("segmenter")),
        AutoTokenizer.from_pretrained(folders.model("detector"), trust_remote_code=False),
        tag_separator=TAG_SEPARATOR,
        detector_shortest_edge=REFINER_IMAGE_SIZE,
        detector_longest_edge=2 * REFINER_IMAGE_SIZE,
        box_threshold=_BOX_THRESHOLD,
        text_threshold=_BOX_THRESHOLD,
        iou_threshold=_IOU_THRESHOLD,
        tile_aspect_ratio=_TILE_ASPECT_RATIO,
        familiar_score=_FAMILIAR_SCORE,
        max_regions=_MAX_REGIONS,
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
    folder = folders.folder("refiner")
    processor.attach_refiner(refiner).save_pretrained(folder)
    results = measure_refiner(LyricsProcessor.from_pretrained(folder))
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def measure_refiner(
    processor: LyricsProcessor,
    draw: Callable[[int], Scene] = draw_test_scene,
    count: int = 500,
    first: int = 20_000,
) -> dict[str, float]:
    """Measure how well a refiner detects the objects of scenes, in percent.

    A shape or character is found if a detection has its label and an IoU of at least 0.5 with its box. Each detection
    matches one shape or character at most.

    Args:
        processor: processor with its refiner.
        draw: function that draws the scene of a number.
        count: number of scenes.
        first: number of the first scene. By default one that no earlier recipe has seen.

    Returns:
        `shapes_found` and `characters_found`: recall. `objects_right`: precision. `scenes_counted`: share of scenes
        with the right number of shapes. `box_overlap` and `mask_overlap`: mean IoU of found shapes.
    """
    scenes = [draw(number) for number in range(first, first + count)]
    refined = processor.refine([scene.image for scene in scenes], batch_size=16, return_masks=True)
    names = ("shapes_found", "characters_found", "objects_right", "scenes_counted", "box_overlap", "mask_overlap")
    values: dict[str, list[float]] = {name: [] for name in names}
    for scene, objects in zip(scenes, refined, strict=True):
        free = set(range(len(objects)))
        for index, (tag, box) in enumerate(visible_tags(scene)):
            iou, match = _best_match(objects, free, tag, box)
            values["shapes_found" if tag in SHAPES else "characters_found"].append(match is not None)
            if match is None:
                continue
            free.remove(match)
            if tag in SHAPES and objects.masks is not None:
                mask, true_mask = objects.masks[match], scene.objects[index].mask
                values["box_overlap"].append(iou)
                values["mask_overlap"].append((mask & true_mask).sum() / (mask | true_mask).sum())
        values["objects_right"] += [index not in free for index in range(len(objects))]
        values["scenes_counted"].append(sum(label in SHAPES for label in objects.labels) == len(scene.objects))
    return {name: round(100 * float(np.mean(numbers)), 1) if numbers else 0.0 for name, numbers in values.items()}


def _best_match(objects: VisualObjects, free: set[int], tag: str, box: Sequence[float]) -> tuple[float, int | None]:
    """Return the largest IoU of a box with a free detection of its tag, and that detection, `None` below 0.5."""
    ious = {index: box_iou(objects.boxes[index], box) for index in free if objects.labels[index] == tag}
    best = max(ious, key=lambda index: ious[index], default=None)
    return (0.0, None) if best is None or ious[best] < MIN_IOU else (ious[best], best)
