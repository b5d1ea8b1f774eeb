"""Keys and values of images for the MQ-Former's queries, projected once for all passes over the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from .bert_blocks import KeyValue

LayerKeyValues = tuple[KeyValue | None, KeyValue | None]  # of the visual and of the grounding cross-attention


@dataclass
class LyricsImageKeyValues:
    """Keys and values of M images, which several passes share.

    Attributes:
        layers: tuple of (visual, grounding) for each layer, each a pair of keys and values of shape (M, heads,
            features, head_dim), or `None` where the layer has no such attention or no image has a region.
        encoder_attention_mask, region_attention_mask: tensors of shape (M, features), 1 for a feature and 0 for
            padding, or `None`.
        num_images: number of images, M.
    """

    layers: tuple[LayerKeyValues, ...]
    encoder_attention_mask: torch.Tensor | None
    region_attention_mask: torch.Tensor | None
    num_images: int

    def select(self, rows: torch.Tensor) -> LyricsImageKeyValues:
        """Return the images at `rows`, an int64 tensor of shape (R,); an index may repeat."""
        return self._map(len(rows), lambda tensor: tensor.index_select(0, rows))

    def select_masks(self, rows: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the masks of vision features and of regions for the images at `rows`, or for all."""
        masks = (self.encoder_attention_mask, self.region_attention_mask)
        if rows is None:
            return masks
        encoder_mask, region_mask = (None if mask is None else mask.index_select(0, rows) for mask in masks)
        return encoder_mask, region_mask

    def join(self, other: LyricsImageKeyValues) -> LyricsImageKeyValues:
        """Return these images followed by those of `other`; both must have the same number of regions."""
        tensors = iter(other._tensors())
        return self._map(self.num_images + other.num_images, lambda tensor: torch.cat([tensor, next(tensors)]))

    def pad_regions(self, length: int) -> LyricsImageKeyValues:
        """Return the images with padding up to `length` regions."""
        mask = self.region_attention_mask
        if mask is None or mask.shape[1] == length:
            return self
        added = length - mask.shape[1]
        layers = tuple(
            (visual, None if grounding is None else (_pad_keys(grounding[0], added), _pad_keys(grounding[1], added)))
            for visual, grounding in self.layers
        )
        return LyricsImageKeyValues(layers, self.encoder_attention_mask, pad(mask, (0, added)), self.num_images)

    def _map(self, num_images: int, change: Callable[[torch.Tensor], torch.Tensor]) -> LyricsImageKeyValues:
        """Return the images with a function applied to all tensors."""
        changed = [None if tensor is None else change(tensor) for tensor in self._flat()]
        masks, projected = changed[:2], changed[2:]
        pairs = [
            None if key is None or value is None else (key, value)
            for key, value in zip(projected[::2], projected[1::2], strict=True)
        ]
        return LyricsImageKeyValues(tuple(zip(pairs[::2], pairs[1::2], strict=True)), masks[0], masks[1], num_images)

    def _flat(self) -> list[torch.Tensor | None]:
        """Return masks, keys and values as a flat list."""
        pairs = [pair or (None, None) for layer in self.layers for pair in layer]
        return [self.encoder_attention_mask, self.region_attention_mask, *(tensor for pair in pairs for tensor in pair)]

    def _tensors(self) -> list[torch.Tensor]:
        """Return all tensors as a flat list."""
        return [tensor for tensor in self._flat() if tensor is not None]


def _pad_keys(tensor: torch.Tensor, added: int) -> torch.Tensor:
    """Append zeros to keys or values of shape (N, heads, keys, head_dim)."""
    return pad(tensor, (0, 0, 0, added))
