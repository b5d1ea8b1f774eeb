"""The segmenter's grid of features as a vision encoder: what the refiner sees, before it makes objects of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, SamModel, SamVisionConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.sam.modeling_sam import SamVisionEncoder


class SegmenterGridConfig(PreTrainedConfig):
    """Configuration of the segmenter's image encoder as a vision encoder.

    Attributes:
        segmenter: fields of `SamVisionConfig`.
        image_size: number of pixels across and down.
        hidden_size: width of the features: the embedding and its position.
        cells: number of cells across and down.
    """

    model_type = "micro_segmenter_grid"

    def __init__(
        self,
        segmenter: dict[str, Any] | None = None,
        image_size: int = 128,
        hidden_size: int = 64,
        cells: int = 16,
        **kwargs: Any,
    ) -> None:
        self.segmenter, self.image_size, self.hidden_size, self.cells = segmenter or {}, image_size, hidden_size, cells
        super().__init__(**kwargs)


class SegmenterGrid(PreTrainedModel):
    """Image encoder of SAM that returns its embedding as a sequence of cells.

    Each cell has its position beside it, which SAM's own mask decoder adds. It has no box and no object.
    """

    config_class = SegmenterGridConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: SegmenterGridConfig) -> None:
        super().__init__(config)
        self.encoder = SamVisionEncoder(SamVisionConfig(**config.segmenter))
        width = config.hidden_size - SamVisionConfig(**config.segmenter).output_channels
        self.positions = nn.Parameter(torch.zeros(config.cells**2, width), requires_grad=False)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        """Encode pictures.

        Args:
            pixel_values: float tensor of shape (N, 3, H, W).
            kwargs: ignored.

        Returns:
            `last_hidden_state` of shape (N, cells, width), row by row.
        """
        cells = self.encoder(pixel_values).last_hidden_state.flatten(2).mT  # (N, cells, D)
        return BaseModelOutput(last_hidden_state=torch.cat([cells, self.positions.expand(len(cells), -1, -1)], dim=-1))


def build_segmenter_grid(segmenter: SamModel) -> SegmenterGrid:
    """Build the vision encoder of a trained segmenter."""
    config: Any = segmenter.config.vision_config
    positions = segmenter.get_image_wide_positional_embeddings()[0].flatten(1).mT  # (cells, D)
    grid = SegmenterGrid(
        SegmenterGridConfig(
            config.to_dict(),
            config.image_size,
            config.output_channels + positions.shape[1],
            config.image_size // config.patch_size,
        )
    )
    grid.encoder.load_state_dict(segmenter.vision_encoder.state_dict())
    grid.positions.data.copy_(positions)
    return grid.eval()


AutoConfig.register(SegmenterGridConfig.model_type, SegmenterGridConfig, exist_ok=True)
AutoModel.register(SegmenterGridConfig, SegmenterGrid, exist_ok=True)
