"""Step 2, first part: pretrain the detector's image encoder by dense classification.

A detector learns slowly from scratch, since a scene has few boxes. Here every cell of a scene has a label: the shape
that covers it and the character in it. Encoders with patch embeddings, such as Swin and ConvNeXt, need several times as
many scenes for this as ResNet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, ResNetBackbone, ResNetConfig

from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, train_step
from ..configs import backbone_config
from ..world.objects import CHARACTERS, SHAPES, Scene
from ..world.scenes import draw_square
from .cell_labels import GRID_SIZE, IGNORED, label_cells
from .detector import detector_pixels

_WIDTH = 64
_EMPTY_WEIGHT = 0.15  # of cells without an object or a character in the loss, which are the most frequent


class _CellClassifier(PreTrainedModel):
    """Backbone with heads that classify every cell. The heads are dropped after training."""

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
        """Return the sum of both heads' cross-entropy losses. The last class of each head is an empty cell.

        Args:
            pixel_values: float tensor of shape (B, 3, H, W).
            shape: int64 tensor of shape (B, 16, 16), labels of `label_cells`.
            character: int64 tensor of shape (B, 16, 16), labels of `label_cells`.
        """
        levels = [
            nn.functional.interpolate(narrow(level), size=(GRID_SIZE, GRID_SIZE), mode="bilinear")
            for narrow, level in zip(self.narrow, self.backbone(pixel_values).feature_maps, strict=True)
        ]
        features = self.mix(torch.stack(levels).sum(dim=0).relu()).relu()  # (B, 64, 16, 16)
        loss = torch.zeros(())
        for head, labels in ((self.shape, shape), (self.character, character)):
            weight = torch.ones(head.out_channels, device=features.device)
            weight[-1] = _EMPTY_WEIGHT
            labels = torch.where(labels == IGNORED, head.out_channels - 1, labels)
            loss = loss + nn.functional.cross_entropy(head(features).float(), labels, weight)
        return loss


def train_backbone(folders: RunFolders) -> None:
    """Train and write the image encoder."""

    def make_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        cells = label_cells(scene)
        return {"pixel_values": detector_pixels(scene), "shape": cells["shape"], "character": cells["character"]}

    arguments = StepArguments(**folders.training_settings("backbone"))
    model = train_step(
        lambda: _CellClassifier(backbone_config()),
        arguments,
        make_row,
        loss=lambda model, batch: model(**batch),
        draw=draw_square,
    )
    model.backbone.save_pretrained(folders.model("backbone"))
