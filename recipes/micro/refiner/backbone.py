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

from ....modeling_lyrics import LyricsRefinerConfig
from ....modeling_lyrics.refiner_images import detector_view
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINED_VIEW, backbone_config
from ..world.scenes import CHARACTERS, SHAPES, Scene
from .cell_labels import GRID, NOTHING, name_cells

_WIDTH = 64
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
            nn.functional.interpolate(narrow(level), size=(GRID, GRID), mode="bilinear")
            for narrow, level in zip(self.narrow, self.backbone(pixel_values).feature_maps, strict=True)
        ]
        seen = self.mix(torch.stack(levels).sum(dim=0).relu()).relu()
        loss = torch.zeros(())
        for head, wanted in ((self.shape, shape), (self.character, character)):
            weight = torch.ones(head.out_channels, device=seen.device)
            weight[-1] = _WEIGHT_OF_NOTHING
            wanted = torch.where(wanted == NOTHING, head.out_channels - 1, wanted)
            loss = loss + nn.functional.cross_entropy(head(seen).float(), wanted, weight)
        return loss


def train_backbone(arguments: StepArguments, out: Path) -> None:
    """Train and write the encoder."""
    config = LyricsRefinerConfig

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        pixels = detector_view(scene.image, REFINED_VIEW, REFINED_VIEW, config.image_mean, config.image_std)
        cells = name_cells(scene)
        return {"pixel_values": pixels, "shape": cells["shape"], "character": cells["character"]}

    def build() -> _SeeingBackbone:
        return _SeeingBackbone(backbone_config())

    model = train_step(build, arguments, view, loss=lambda model, batch: model(**batch))
    model.backbone.save_pretrained(out)
