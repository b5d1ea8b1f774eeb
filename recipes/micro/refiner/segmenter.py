"""Step 2, fourth part: SAM learns to outline what is in a box.

A world this poor teaches its image encoder little but edges. So that the mean of its embedding under a mask, the
region feature, says what is there, four small heads, which are dropped afterwards, learn to read color, size, shape
and character off it, and off every cell of the embedding.

Shapes are learned in pictures with other colors, where a color says nothing about the shape, and colors in the others:
else what is purple would never look like a cross to it, since no scene that it learns from shows a purple cross.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import SamConfig, SamModel

from ....modeling_lyrics import LyricsRefinerConfig
from ....modeling_lyrics.refiner_images import segmenter_view
from ....modeling_lyrics.refiner_regions import pool_masks
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINED_VIEW, REGION_WIDTH, segmenter_config
from ..world.scenes import CHARACTERS, COLORS, SHAPES, SIZES, Scene
from .cell_labels import NOTHING, name_cells

_OBJECTS = 4  # per scene and step; of a scene with fewer, some count twice
_JITTER = 0.01
_HEADS = ("color", "size", "shape", "character")
_TINTED = 0.6  # of the pictures


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
    model = train_step(lambda: _ReadSegmenter(segmenter_config()), arguments, view_objects, loss=_loss)
    for head in _HEADS:
        delattr(model, head)
    segmenter = SamModel(segmenter_config())
    segmenter.load_state_dict(model.state_dict())
    segmenter.save_pretrained(out)


def view_objects(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
    """Four of a scene's objects: the picture, boxes in [0, 1], masks, and what the heads are to read.

    Its colors are named, or it is tinted and its shapes are; what is not named is `NOTHING`.
    """
    config = LyricsRefinerConfig
    chosen = [scene.objects[index] for index in np.resize(random.permutation(len(scene.objects)), _OBJECTS)]
    boxes = np.array([thing.box for thing in chosen], np.float32)
    boxes = boxes + random.normal(0, _JITTER, boxes.shape).astype(np.float32)
    named = {f"{kind}_cells": numbers for kind, numbers in name_cells(scene).items()} | {
        "color": np.array([list(COLORS).index(thing.color) for thing in chosen]),
        "size": np.array([list(SIZES).index(thing.size) for thing in chosen]),
        "shape": np.array([SHAPES.index(thing.shape) for thing in chosen]),
        "character": np.array([f"{CHARACTERS} ".index(thing.character or " ") for thing in chosen]),
    }
    tinted = random.random() < _TINTED
    for name in ("color", "color_cells") if tinted else ("shape", "shape_cells"):
        named[name] = np.full_like(named[name], NOTHING)
    image = tint(scene.image, random) if tinted else scene.image
    return named | {
        "pixel_values": segmenter_view(image, REFINED_VIEW, config.image_mean, config.image_std)[0],
        "boxes": boxes.clip(0, 1),
        "masks": np.stack([thing.mask for thing in chosen]),
    }


def tint(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture with all hues turned by the same angle, paler or not, and darker or brighter."""
    hues = np.asarray(image.convert("HSV"), np.float32)
    hues[..., 0] = (hues[..., 0] + random.uniform(0, 256)) % 256
    hues[..., 1:] *= random.uniform((0.5, 0.6), (1.0, 1.3))
    return Image.fromarray(hues.clip(0, 255).astype(np.uint8), "HSV").convert("RGB")


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
        _read(getattr(model, head)(seen), named)
        for head in _HEADS
        for seen, named in (
            (features, batch[head]),
            (embeddings.permute(0, 2, 3, 1), batch[f"{head}_cells"]),
        )
    ]
    return 5 * outline + (1 - overlap).mean() + sum(read)


def _read(logits: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over what has a name, of which a batch may hold nothing."""
    summed = nn.functional.cross_entropy(
        logits.float().flatten(0, -2), named.flatten(), ignore_index=NOTHING, reduction="sum"
    )
    return summed / (named != NOTHING).sum().clamp(min=1)
