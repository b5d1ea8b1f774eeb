"""Selection of objects among detections, and pooling of region features under masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .refiner_detection import Detections


def to_corners(boxes: torch.Tensor) -> torch.Tensor:
    """Convert boxes of shape (..., 4) from cxcywh to xyxy, clipped to [0, 1]."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - size / 2, center + size / 2], dim=-1).clamp(0.0, 1.0)


def box_iou(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of a box (4,) with others (R, 4), all xyxy: a float tensor of shape (R,)."""
    top_left, bottom_right = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(dim=-1)
    return intersection / (areas - intersection).clamp(min=torch.finfo(others.dtype).tiny)


def non_maximum_suppression(boxes: torch.Tensor, iou_threshold: float, max_boxes: int) -> torch.Tensor:
    """Return the indices of the kept boxes, in order.

    A box is dropped where it overlaps a kept box before it by more than `iou_threshold`.

    Args:
        boxes: float tensor of shape (R, 4), xyxy, best first.
        iou_threshold: largest overlap of two kept boxes.
        max_boxes: largest number of kept boxes.
    """
    kept: list[int] = []
    left = np.arange(len(boxes))  # candidates, best first
    on_cpu = boxes.cpu()  # few numbers, and each kept box decides about the next
    while len(left) and len(kept) < max_boxes:
        kept.append(int(left[0]))
        left = left[1:]
        left = left[(box_iou(on_cpu[kept[-1]], on_cpu[left]) <= iou_threshold).numpy()]
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def select_objects(
    detections: Detections, box_threshold: float, text_threshold: float, iou_threshold: float, max_regions: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the objects of an image, best score first; of equal scores, the earlier query comes first.

    Returns:
        Boxes (R, 4) xyxy in [0, 1], scores (R,) and label ids (R,). R may be 0.
    """
    boxes = to_corners(detections.boxes.float().nan_to_num(0.0))
    keep = (detections.scores > max(box_threshold, text_threshold)) & (detections.label_ids >= 0)
    keep &= (boxes[:, 2:] > boxes[:, :2]).all(dim=-1)  # drops boxes without area, such as those outside the image
    boxes, scores, labels = boxes[keep], detections.scores[keep], detections.label_ids[keep]
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = non_maximum_suppression(boxes, iou_threshold, max_regions)
    return boxes[kept], scores[kept], labels[kept]


def box_coverage(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the share of each grid cell that a box covers, (R, height, width); the cell of its center is never 0.

    Args:
        boxes: float tensor of shape (R, 4), xyxy in [0, 1] of the grid.
        height, width: size of the grid.
    """

    def overlap(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
        edges = torch.arange(cells, device=boxes.device)
        low, high = (low * cells)[:, None], (high * cells)[:, None]
        center = ((low + high) / 2).floor().clamp(0, cells - 1)
        covered = (torch.minimum(high, edges + 1.0) - torch.maximum(low, edges.float())).clamp(0, 1)
        return torch.maximum(covered, 1e-3 * (edges == center).float())

    across, down = overlap(boxes[:, 0], boxes[:, 2], width), overlap(boxes[:, 1], boxes[:, 3], height)
    return down[:, :, None] * across[:, None, :]


def pool_masks(
    embedding: torch.Tensor, mask_logits: torch.Tensor, boxes: torch.Tensor, valid: Sequence[float]
) -> torch.Tensor:
    """Return the mean of an image embedding under each mask, or under the box where the mask is empty.

    Masks are averaged down to the embedding's grid, so that a cell counts by the share of it that the object covers.

    Args:
        embedding: float tensor of shape (D, h, w), of the padded view.
        mask_logits: float tensor of shape (R, H, W), of the padded view, positive inside the object.
        boxes: float tensor of shape (R, 4), xyxy in [0, 1] of the image.
        valid: share of the view that is image instead of padding, in height and in width.

    Returns:
        float32 tensor of shape (R, D).
    """
    height, width = mask_logits.shape[-2:]
    grid = (embedding.shape[-2], embedding.shape[-1])
    masks = (mask_logits > 0).float()
    masks[:, round(valid[0] * height) :, :] = 0
    masks[:, :, round(valid[1] * width) :] = 0
    weights = nn.functional.adaptive_avg_pool2d(masks.unsqueeze(1), grid).squeeze(1)
    scale = boxes.new_tensor([valid[1], valid[0], valid[1], valid[0]])
    weights = torch.where(weights.sum(dim=(1, 2), keepdim=True) > 0, weights, box_coverage(boxes * scale, *grid))
    weights = weights.flatten(1)
    return (weights / weights.sum(dim=1, keepdim=True)) @ embedding.float().flatten(1).T
