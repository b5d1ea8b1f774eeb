"""Step 2, first part: the encoder that the detector begins with learns to see.

A detector learns slowly from nothing, since a scene tells it little: which of its boxes fit. Here every cell of a scene
tells which shape covers it and which character is written there. Encoders that begin with patches, as Swin and ConvNeXt
do, need several times as many scenes for it as ResNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, ResNetBackbone, ResNetConfig

from ...modeling_lyrics import LyricsRefinerConfig
from ...modeling_lyrics.refiner_images import detector_view
from .parts import REFINED_VIEW, backbone_config
from .training import StepArguments, train_step
from .world import CHARACTERS, SHAPES, Scene

_CELL = 8
_GRID = REFINED_VIEW // _CELL
_WIDTH = 64
_MARGIN = 0.015  # around a character, which is thin
_WEIGHT_OF_NOTHING = 0.15  # most cells show no object, and nearly all no character


class _SeeingBackbone(PreTrainedModel):
    """An encoder, and heads that name what is in each cell; they are dropped afterwards."""

    config_class = ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.backbone: Any = ResNetBackbone(config)
        self.narrow = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in self.backbone.channels)
        self.mix = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.shape = nn.Conv2d(_WIDTH, len(SHAPES) + 1, 1)
        self.character = nn.Conv2d(_WIDTH, len(CHARACTERS) + 1, 1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, shape: torch.Tensor, character: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of both heads; the last class of each is nothing."""
        levels = [
            nn.functional.interpolate(narrow(level), size=(_GRID, _GRID), mode="bilinear")
            for narrow, level in zip(self.narrow, self.backbone(pixel_values).feature_maps, strict=True)
        ]
        seen = self.mix(torch.stack(levels).sum(dim=0).relu()).relu()
        loss = torch.zeros(())
        for head, wanted in ((self.shape, shape), (self.character, character)):
            weight = torch.ones(head.out_channels, device=seen.device)
            weight[-1] = _WEIGHT_OF_NOTHING
            loss = loss + nn.functional.cross_entropy(head(seen), wanted, weight)
        return loss


def train_backbone(arguments: StepArguments, out: Path) -> None:
    """Train and write the encoder."""
    config = LyricsRefinerConfig

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        pixels = detector_view(scene.image, REFINED_VIEW, REFINED_VIEW, config.image_mean, config.image_std)
        shapes, characters = _name_cells(scene)
        return {"pixel_values": pixels, "shape": torch.tensor(shapes), "character": torch.tensor(characters)}

    def build() -> _SeeingBackbone:
        return _SeeingBackbone(backbone_config())

    model = train_step(build, arguments, view, loss=lambda model, batch: model(**batch))
    model.backbone.save_pretrained(out)


def _name_cells(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(16, 16) numbers of the shape, and of the character, in the middle of each cell."""
    y, x = np.mgrid[:_GRID, :_GRID] * _CELL + _CELL // 2
    shapes, characters = np.full((_GRID, _GRID), len(SHAPES)), np.full((_GRID, _GRID), len(CHARACTERS))
    for thing in scene.objects:
        shapes[thing.mask[y, x]] = SHAPES.index(thing.shape)
        if thing.character is not None and thing.character_box is not None:
            x1, y1, x2, y2 = (value * REFINED_VIEW for value in thing.character_box)
            margin = _MARGIN * REFINED_VIEW
            inside = (x > x1 - margin) & (x < x2 + margin) & (y > y1 - margin) & (y < y2 + margin)
            characters[inside] = CHARACTERS.index(thing.character)
    return shapes, characters
