"""Step 2, fourth part: train SAM to segment the object in a box.

Masks of such simple scenes teach its image encoder little but edges. A region feature is the mean of the image
embedding under a mask, and should describe the object. So four small heads learn to predict color, size, shape and
character from region features and from every cell of the embedding. They are dropped after training.

Shapes are learned in images with shifted hues, where the color says nothing about the shape. Colors are learned in the
other images. Otherwise nothing purple would be recognized as a cross, since no training scene shows a purple cross.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import SamConfig, SamModel

from ....modeling_lyrics import LyricsRefinerConfig
from ....modeling_lyrics.refiner_images import segmenter_view
from ....modeling_lyrics.refiner_regions import pool_masks
from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINER_IMAGE_SIZE, REGION_WIDTH, segmenter_config
from ..world.objects import CHARACTERS, COLORS, SHAPES, SIZES, Scene
from ..world.scenes import draw_square
from .cell_labels import IGNORED, label_cells

_OBJECTS_PER_SCENE = 4  # objects of a scene with fewer are repeated
_BOX_NOISE = 0.01  # standard deviation
_HEADS = ("color", "size", "shape", "character")
SHIFT_PROBABILITY = 0.6  # that the hues of an image are shifted


class _SegmenterWithHeads(SamModel):
    """SAM with heads that classify region features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        self.apply(_init_weights)
        self.color = nn.Linear(REGION_WIDTH, len(COLORS))
        self.size = nn.Linear(REGION_WIDTH, len(SIZES))
        self.shape = nn.Linear(REGION_WIDTH, len(SHAPES))
        self.character = nn.Linear(REGION_WIDTH, len(CHARACTERS) + 1)  # the last class is no character


@torch.no_grad()
def _init_weights(module: nn.Module) -> None:
    """Initialize weights so that activations keep their size.

    Transformers' own initialization is meant for weights that are loaded. With it, SAM of this width learns nothing.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)


def train_segmenter(folders: RunFolders) -> None:
    """Train and write SAM."""
    arguments = StepArguments(**folders.training_settings("segmenter"))
    model = train_step(
        lambda: _SegmenterWithHeads(segmenter_config()),
        arguments,
        make_segmenter_row,
        loss=_loss,
        draw=partial(draw_square, empty=False),
    )
    for head in _HEADS:
        delattr(model, head)
    segmenter = SamModel(segmenter_config())
    segmenter.load_state_dict(model.state_dict())
    segmenter.save_pretrained(folders.model("segmenter"))


def make_segmenter_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
    """Return image, boxes in [0, 1], masks, and the labels of the heads for four objects of a scene.

    Either colors have labels, or the hues of the image are shifted and shapes have labels. Other labels are `IGNORED`.
    """
    config = LyricsRefinerConfig
    order = np.resize(random.permutation(len(scene.objects)), _OBJECTS_PER_SCENE)
    chosen = [scene.objects[index] for index in order]
    boxes = np.array([thing.box for thing in chosen], np.float32)
    boxes = boxes + random.normal(0, _BOX_NOISE, boxes.shape).astype(np.float32)
    labels = {f"{kind}_cells": numbers for kind, numbers in label_cells(scene).items()} | {
        "color": np.array([COLORS.index(thing.color) for thing in chosen]),
        "size": np.array([SIZES.index(thing.size) for thing in chosen]),
        "shape": np.array([SHAPES.index(thing.shape) for thing in chosen]),
        "character": np.array([f"{CHARACTERS} ".index(thing.character or " ") for thing in chosen]),
    }
    shifted = random.random() < SHIFT_PROBABILITY
    for name in ("color", "color_cells") if shifted else ("shape", "shape_cells"):
        labels[name] = np.full_like(labels[name], IGNORED)
    image = shift_hues(scene.image, random) if shifted else scene.image
    return labels | {
        "pixel_values": segmenter_view(image, REFINER_IMAGE_SIZE, config.image_mean, config.image_std)[0],
        "boxes": boxes.clip(0, 1),
        "masks": np.stack([thing.mask for thing in chosen]),
    }


def shift_hues(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Shift all hues of an image by the same random angle, and scale saturation and brightness."""
    hues = np.asarray(image.convert("HSV"), np.float32)
    hues[..., 0] = (hues[..., 0] + random.uniform(0, 256)) % 256
    hues[..., 1:] *= random.uniform((0.5, 0.6), (1.0, 1.3))
    return Image.fromarray(hues.clip(0, 255).astype(np.uint8), "HSV").convert("RGB")


def _loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return cross-entropy and Dice loss of the masks plus cross-entropy of the heads."""
    embeddings = model.vision_encoder(batch["pixel_values"]).last_hidden_state
    output = model(image_embeddings=embeddings, input_boxes=batch["boxes"] * REFINER_IMAGE_SIZE, multimask_output=False)
    logits = output.pred_masks[:, :, 0]
    masks = batch["masks"].float()
    target = nn.functional.adaptive_avg_pool2d(masks, logits.shape[-2:])
    mask_loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
    predicted = logits.sigmoid()
    dice = 2 * (predicted * target).sum((-1, -2)) / ((predicted + target).sum((-1, -2)) + 1e-3)
    mask_logits = (masks - 0.5) * 20
    pooled = [pool_masks(*one, [1.0, 1.0]) for one in zip(embeddings, mask_logits, batch["boxes"], strict=True)]
    cells = embeddings.permute(0, 2, 3, 1)  # (B, 16, 16, D)
    inputs = {"": torch.stack(pooled), "_cells": cells}
    head_losses = [
        _cross_entropy(getattr(model, head)(features), batch[f"{head}{suffix}"])
        for head in _HEADS
        for suffix, features in inputs.items()
    ]
    return 5 * mask_loss + (1 - dice).mean() + sum(head_losses)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over labels that are not `IGNORED`, or zero if there are none."""
    total = nn.functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels != IGNORED).sum().clamp(min=1)
