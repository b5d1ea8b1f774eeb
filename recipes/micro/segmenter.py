"""Step 2, fourth part: SAM learns to outline what is in a box.

A world this poor teaches its image encoder little but edges. So that the mean of its embedding under a mask, the
region feature, says what is there, four small heads, which are dropped afterwards, learn to read color, size, shape
and character off it, and off every cell of the embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import SamConfig, SamModel

from ...modeling_lyrics import LyricsRefinerConfig
from ...modeling_lyrics.refiner_images import segmenter_view
from ...modeling_lyrics.refiner_regions import pool_masks
from .cells import NOTHING, name_cells
from .parts import REFINED_VIEW, REGION_WIDTH, segmenter_config
from .training import StepArguments, train_step
from .world import CHARACTERS, COLORS, SHAPES, SIZES, Scene

_OBJECTS = 4  # per scene and step; of a scene with fewer, some count twice
_JITTER = 0.01
_HEADS = ("color", "size", "shape", "character")


class _ReadSegmenter(SamModel):
    """SAM, and heads that read its region features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        self.apply(_spread)
        self.color = nn.Linear(REGION_WIDTH, len(COLORS))
        self.size = nn.Linear(REGION_WIDTH, len(SIZES))
        self.shape = nn.Linear(REGION_WIDTH, len(SHAPES))
        self.character = nn.Linear(REGION_WIDTH, len(CHARACTERS) + 1)  # the last: none


@torch.no_grad()
def _spread(module: nn.Module) -> None:
    """Weights that keep the size of what passes through them; with Transformers' own SAM at this width learns nothing.

    Those are for weights that are loaded.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)


def train_segmenter(arguments: StepArguments, out: Path) -> None:
    """Train and write SAM."""
    config = LyricsRefinerConfig

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        chosen = [scene.objects[index] for index in np.resize(random.permutation(len(scene.objects)), _OBJECTS)]
        boxes = np.array([thing.box for thing in chosen], np.float32)
        boxes = boxes + random.normal(0, _JITTER, boxes.shape).astype(np.float32)
        cells = {f"{kind}_cells": numbers for kind, numbers in name_cells(scene).items()}
        return cells | {
            "pixel_values": segmenter_view(scene.image, REFINED_VIEW, config.image_mean, config.image_std)[0],
            "boxes": boxes.clip(0, 1),
            "masks": np.stack([thing.mask for thing in chosen]),
            "color": np.array([list(COLORS).index(thing.color) for thing in chosen]),
            "size": np.array([list(SIZES).index(thing.size) for thing in chosen]),
            "shape": np.array([SHAPES.index(thing.shape) for thing in chosen]),
            "character": np.array([f"{CHARACTERS} ".index(thing.character or " ") for thing in chosen]),
        }

    model = train_step(lambda: _ReadSegmenter(segmenter_config()), arguments, view, loss=_loss)
    for head in _HEADS:
        delattr(model, head)
    segmenter = SamModel(segmenter_config())
    segmenter.load_state_dict(model.state_dict())
    segmenter.save_pretrained(out)


def _loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Cross-entropy and Dice of the masks, and cross-entropy of what the heads read."""
    embeddings = model.vision_encoder(batch["pixel_values"]).last_hidden_state
    output = model(image_embeddings=embeddings, input_boxes=batch["boxes"] * REFINED_VIEW, multimask_output=False)
    logits = output.pred_masks[:, :, 0]
    masks = batch["masks"].float()
    target = nn.functional.adaptive_avg_pool2d(masks, logits.shape[-2:])
    outline = nn.functional.binary_cross_entropy_with_logits(logits, target)
    found = logits.sigmoid()
    overlap = 2 * (found * target).sum((-1, -2)) / ((found + target).sum((-1, -2)) + 1e-3)
    known = (masks - 0.5) * 20
    features = torch.stack(
        [
            pool_masks(embedding, mask, boxes, [1.0, 1.0])
            for embedding, mask, boxes in zip(embeddings, known, batch["boxes"], strict=True)
        ]
    )
    read = [
        nn.functional.cross_entropy(
            getattr(model, head)(seen).float().flatten(0, -2), named.flatten(), ignore_index=NOTHING
        )
        for head in _HEADS
        for seen, named in (
            (features, batch[head]),
            (embeddings.permute(0, 2, 3, 1), batch[f"{head}_cells"]),
        )
    ]
    return 5 * outline + (1 - overlap).mean() + sum(read)
