"""Keys and values that the MQ-Former's queries attend to, projected once for all passes over the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from .bert_blocks import KeyValue

LayerKeyValues = tuple[KeyValue | None, KeyValue | None]  # of the visual and of the grounding cross-attention


@dataclass
class LyricsImageKeyValues:
    """What the queries attend to, projected ahead: several passes over the same images share it.

    Attributes:
        layers: for each layer the keys and values of its visual and of its grounding cross-attention, each
            (M, heads, features, head_dim), or `None` where the layer has no such attention or no image has a region.
        encoder_attention_mask, region_attention_mask: (M, features), as given.
        num_images: M.
    """

    layers: tuple[LayerKeyValues, ...]
    encoder_attention_mask: torch.Tensor | None
    region_attention_mask: torch.Tensor | None
    num_images: int

    def select(self, rows: torch.Tensor) -> LyricsImageKeyValues:
        """Those of the images that stand in `rows` (R,) int64; an image may stand in several."""
        return self._map(len(rows), lambda tensor: tensor.index_select(0, rows))

    def join(self, other: LyricsImageKeyValues) -> LyricsImageKeyValues:
        """These images, then those of `other`, whose regions must be padded to the same number."""
        tensors = iter(other._tensors())
        return self._map(self.num_images + other.num_images, lambda tensor: torch.cat([tensor, next(tensors)]))

    def pad_regions(self, length: int) -> LyricsImageKeyValues:
        """The same with regions up to `length`, the new ones padding."""
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
        changed = [None if tensor is None else change(tensor) for tensor in self._flat()]
        masks, projected = changed[:2], changed[2:]
        pairs = [
            None if key is None or value is None else (key, value)
            for key, value in zip(projected[::2], projected[1::2], strict=True)
        ]
        return LyricsImageKeyValues(tuple(zip(pairs[::2], pairs[1::2], strict=True)), masks[0], masks[1], num_images)

    def _flat(self) -> list[torch.Tensor | None]:
        pairs = [pair or (None, None) for layer in self.layers for pair in layer]
        return [self.encoder_attention_mask, self.region_attention_mask, *(tensor for pair in pairs for tensor in pair)]

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in self._flat() if tensor is not None]


def _pad_keys(tensor: torch.Tensor, added: int) -> torch.Tensor:
    """(N, heads, keys, head_dim) with more keys, all zero."""
    return pad(tensor, (0, 0, 0, added))
