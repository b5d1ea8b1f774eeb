"""Asking the segmenter: boxes become masks, a few at a time, and masks become region features.

The members of the SAM family differ in what they keep of a picture; an `_Embedding` is a picture of any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .refiner_regions import pool_masks


def segment(
    segmenter: Any,
    pixel_values: torch.Tensor,
    sizes: torch.Tensor,
    boxes: Sequence[torch.Tensor],
    mask_sizes: torch.Tensor | None,
    boxes_per_batch: int,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outline the objects of N images.

    Args:
        segmenter: of the SAM family; D is the width of its image embedding.
        pixel_values: (N, 3, S, S) float, padded at the right and the bottom.
        sizes: (N, 2) int64, height and width of the picture inside the view.
        boxes: for each image (R, 4) xyxy in [0, 1] of the picture.
        mask_sizes: (N, 2) int64, height and width of the masks to return, or `None` for no masks.
        boxes_per_batch: how many boxes go through the mask decoder at once.

    Returns:
        For each image (R, D + 4) float32, the mean embedding under the mask and the box; and, when asked for, for each
        image (R, height, width) bool.
    """
    width = segmenter.config.mask_decoder_config.hidden_size
    features = [box.new_zeros(0, width + 4) for box in boxes]
    wanted = [] if mask_sizes is None else mask_sizes.tolist()
    masks = [torch.zeros(0, *size, dtype=torch.bool, device=pixel_values.device) for size in wanted]
    busy = [index for index, box in enumerate(boxes) if len(box)]
    if not busy:
        return features, masks
    for index, embedding in zip(busy, _embed(segmenter, pixel_values[busy]), strict=True):
        view = _View(pixel_values.shape[-1], sizes[index].tolist(), wanted[index] if wanted else None)
        chunks = boxes[index].split(boxes_per_batch)
        parts, outlines = zip(*(_segment_some(segmenter, embedding, chunk, view) for chunk in chunks), strict=True)
        features[index] = torch.cat(parts)
        if wanted:
            masks[index] = torch.cat(outlines)
    return features, masks


@dataclass
class _View:
    """The square that the segmenter sees, and what it is a view of.

    Attributes:
        side: of the square.
        inner: height and width of the picture inside it.
        mask_size: height and width of the masks to make, if any.
    """

    side: int
    inner: Sequence[int]
    mask_size: Sequence[int] | None


def _segment_some(
    segmenter: Any, embedding: _Embedding, boxes: torch.Tensor, view: _View
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Region features of some boxes of a picture, and their masks; a call of its own, which keeps nothing else."""
    logits = _predict_masks(segmenter, embedding, boxes, view.inner)
    pooled = pool_masks(embedding.features, logits, boxes, [side / view.side for side in view.inner])
    masks = None if view.mask_size is None else _resize_masks(logits, view.side, view.inner, view.mask_size)
    return torch.cat([pooled, boxes], dim=-1), masks


@dataclass
class _Embedding:
    """A picture as the segmenter keeps it.

    Attributes:
        features: (D, h, w), what is averaged under masks.
        inputs: of the segmenter's forward pass, with a batch dimension of 1.
    """

    features: torch.Tensor
    inputs: dict[str, Any]


def _embed(segmenter: Any, pixel_values: torch.Tensor) -> list[_Embedding]:
    embedded = segmenter.get_image_embeddings(pixel_values.to(segmenter.dtype))
    rows = range(len(pixel_values))
    if isinstance(embedded, list):  # SAM 2: feature maps, the finest first
        maps = [[level[row : row + 1] for level in embedded] for row in rows]
        return [_Embedding(levels[-1][0], {"image_embeddings": levels}) for levels in maps]
    if isinstance(embedded, tuple):  # SAM-HQ: the embedding, and what earlier layers saw
        last, earlier = embedded
        return [
            _Embedding(
                last[row],
                {
                    "image_embeddings": last[row : row + 1],
                    "intermediate_embeddings": [layer[row : row + 1] for layer in earlier],
                },
            )
            for row in rows
        ]
    return [_Embedding(embedded[row], {"image_embeddings": embedded[row : row + 1]}) for row in rows]


def _predict_masks(segmenter: Any, embedding: _Embedding, boxes: torch.Tensor, inner: Sequence[int]) -> torch.Tensor:
    """(R, h, w) float32 logits over the padded view, for boxes of one picture of `inner` height and width."""
    height, width = inner
    prompt = boxes * boxes.new_tensor([width, height, width, height])
    output = segmenter(
        **embedding.inputs,
        input_boxes=prompt[None].to(embedding.features.dtype),
        multimask_output=False,
        return_dict=True,
    )
    return output.pred_masks[0, :, 0].float()


def _resize_masks(logits: torch.Tensor, side: int, inner: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """(R, h, w) logits over the padded view -> (R, *size) bool masks of the picture."""
    view = nn.functional.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)
    view = view[..., : inner[0], : inner[1]]
    return nn.functional.interpolate(view, tuple(size), mode="bilinear", align_corners=False)[:, 0] > 0
