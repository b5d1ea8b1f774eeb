"""Segmentation with a SAM-family model: boxes become masks, one image at a time, and masks become region features.

The members of the family differ in the embedding that they make of an image; an `_Embedding` wraps that of any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .refiner_detection import warn_of_lost_numbers
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
        segmenter: SAM-family model; D is the width of its image embedding.
        pixel_values: float tensor of shape (N, 3, S, S), padded at the right and the bottom.
        sizes: int64 tensor of shape (N, 2), height and width of the image inside the view.
        boxes: sequence of one tensor of shape (R, 4) for each image, xyxy in [0, 1] of the image.
        mask_sizes: int64 tensor of shape (N, 2), height and width of the masks to return, or `None` for no masks.
        boxes_per_batch: number of boxes that the mask decoder processes at once.

    Returns:
        For each image a float32 tensor of shape (R, D + 4), the mean embedding under the mask and the box; and, with
        `mask_sizes`, for each image a bool tensor of shape (R, height, width).
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
    """The square that the segmenter sees of an image.

    Attributes:
        side: side of the square.
        inner: height and width of the image inside it.
        mask_size: height and width of the masks to make, or `None`.
    """

    side: int
    inner: Sequence[int]
    mask_size: Sequence[int] | None


def _segment_some(
    segmenter: Any, embedding: _Embedding, boxes: torch.Tensor, view: _View
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return region features of some boxes of an image, and their masks; a function, so that the rest is freed."""
    logits = _predict_masks(segmenter, embedding, boxes, view.inner)
    pooled = pool_masks(embedding.features, logits, boxes, [side / view.side for side in view.inner])
    masks = None if view.mask_size is None else _resize_masks(logits, view.side, view.inner, view.mask_size)
    return torch.cat([pooled, boxes], dim=-1), masks


@dataclass
class _Embedding:
    """Embedding of one image.

    Attributes:
        features: float tensor of shape (D, h, w), which is averaged under masks.
        inputs: dictionary of the segmenter's inputs, with a batch dimension of 1.
    """

    features: torch.Tensor
    inputs: dict[str, Any]


def _embed(segmenter: Any, pixel_values: torch.Tensor) -> list[_Embedding]:
    """Return the embedding of each image, shape (N, 3, S, S)."""
    embedded = segmenter.get_image_embeddings(pixel_values.to(segmenter.dtype))
    rows = range(len(pixel_values))
    if isinstance(embedded, list):  # SAM 2, EdgeTAM: feature maps, the finest first
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
    """Return mask logits over the padded view, float32 of shape (R, h, w), for boxes of one image."""
    height, width = inner
    prompt = boxes * boxes.new_tensor([width, height, width, height])
    output = segmenter(
        **embedding.inputs,
        input_boxes=prompt[None].to(embedding.features.dtype),
        multimask_output=False,
        return_dict=True,
    )
    logits = output.pred_masks[0, :, 0].float()
    warn_of_lost_numbers("segmenter", logits, segmenter.dtype)
    return logits


def _resize_masks(logits: torch.Tensor, side: int, inner: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Convert logits over the padded view (R, h, w) to bool masks of the image (R, *size)."""
    view = nn.functional.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)
    view = view[..., : inner[0], : inner[1]]
    return nn.functional.interpolate(view, tuple(size), mode="bilinear", align_corners=False)[:, 0] > 0
