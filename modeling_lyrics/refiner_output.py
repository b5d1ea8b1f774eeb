"""What the refiner returns: objects of a batch as padded tensors, and of one image without padding."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers.utils.generic import ModelOutput


@dataclass
class LyricsRefinerOutput(ModelOutput):
    """Objects of N images. R is the largest number of objects, Q of region features, d_r their width, T of tags.

    Attributes:
        region_features: float32 tensor of shape (N, Q, d_r), zero-padded. Q is R for `"mask"` features, and the number
            of the detector's queries for `"detection"` features.
        region_attention_mask: int64 tensor of shape (N, Q), 1 for a feature and 0 for padding.
        boxes: float32 tensor of shape (N, R, 4), xyxy in [0, 1] of the image, zero-padded.
        scores: float32 tensor of shape (N, R), best first, zero-padded.
        label_ids: int64 tensor of shape (N, R), indices into the given tags or else into the tagger's vocabulary; -1 is
            padding.
        tag_logits: float tensor of shape (N, T), when the tagger ran.
        tag_mask: int64 tensor of shape (N, T), 1 for the tags above their threshold, when the tagger ran.
        masks: tuple of one bool tensor of shape (objects, height, width) for each image, at the image's size, when
            asked for.
    """

    region_features: torch.Tensor | None = None
    region_attention_mask: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    label_ids: torch.Tensor | None = None
    tag_logits: torch.Tensor | None = None
    tag_mask: torch.Tensor | None = None
    masks: tuple[torch.Tensor, ...] | None = None


@dataclass
class RefinedImage:
    """Objects of one image, on the CPU; the attributes are those of `VisualObjects`.

    Attributes:
        labels: list of one tag per object.
        boxes: float32 tensor of shape (R, 4), xyxy in [0, 1] of the image.
        scores: float32 tensor of shape (R,), best first.
        region_features: float32 tensor of shape (Q, d_r).
        masks: bool tensor of shape (R, height, width), or `None`.
        tags: list of the tags that the detector looked for.
    """

    labels: list[str]
    boxes: torch.Tensor
    scores: torch.Tensor
    region_features: torch.Tensor
    masks: torch.Tensor | None = None
    tags: list[str] = field(default_factory=list)
