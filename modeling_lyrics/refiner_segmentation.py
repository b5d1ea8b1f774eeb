"""Asking the segmenter: boxes become masks, a few at a time, and masks become region features."""

from __future__ import annotations

from collections.abc import Sequence
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
    width = segmenter.config.vision_config.output_channels
    features = [box.new_zeros(0, width + 4) for box in boxes]
    wanted = [] if mask_sizes is None else mask_sizes.tolist()
    masks = [torch.zeros(0, *size, dtype=torch.bool, device=pixel_values.device) for size in wanted]
    busy = [index for index, box in enumerate(boxes) if len(box)]
    if not busy:
        return features, masks
    embeddings = segmenter.get_image_embeddings(pixel_values[busy].to(segmenter.dtype))
    for index, embedding in zip(busy, embeddings, strict=True):
        inner = sizes[index].tolist()
        parts = []
        for chunk in boxes[index].split(boxes_per_batch):
            logits = _predict_masks(segmenter, embedding, chunk, inner)
            pooled = pool_masks(embedding, logits, chunk, [side / pixel_values.shape[-1] for side in inner])
            parts.append(torch.cat([pooled, chunk], dim=-1))
            if wanted:
                full = _resize_masks(logits, pixel_values.shape[-1], inner, wanted[index])
                masks[index] = torch.cat([masks[index], full])
        features[index] = torch.cat(parts)
    return features, masks


def _predict_masks(segmenter: Any, embedding: torch.Tensor, boxes: torch.Tensor, inner: Sequence[int]) -> torch.Tensor:
    """(R, h, w) float32 logits over the padded view, for boxes of one picture of `inner` height and width."""
    height, width = inner
    prompt = boxes * boxes.new_tensor([width, height, width, height])
    output = segmenter(
        image_embeddings=embedding[None],
        input_boxes=prompt[None].to(embedding.dtype),
        multimask_output=False,
        return_dict=True,
    )
    return output.pred_masks[0, :, 0].float()


def _resize_masks(logits: torch.Tensor, side: int, inner: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """(R, h, w) logits over the padded view -> (R, *size) bool masks of the picture."""
    view = nn.functional.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)
    view = view[..., : inner[0], : inner[1]]
    return nn.functional.interpolate(view, tuple(size), mode="bilinear", align_corners=False)[:, 0] > 0
