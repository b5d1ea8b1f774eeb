"""Keys and values of conversations that were answered, for the next turn and for other questions that begin alike."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..processing_lyrics.byte_cache import ByteCache, CacheStats


@dataclass(frozen=True)
class _Prefix:
    """Tokens that a model has read, with keys and values.

    Attributes:
        token_ids: int64 array of shape (L,).
        images: keys of the encoded images at the placeholders, in their order.
        layers: for each layer the keys and values, tensors of shape (1, heads, L, width).
    """

    token_ids: np.ndarray
    images: tuple[Hashable, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]


class PrefixCache:
    """Finds the longest beginning of a prompt that was read before, with the same images.

    Only caches of plain attention layers are kept, which can be cut after any token.

    Args:
        max_bytes: largest size of all keys and values together.
        image_token_id: id of the placeholder.
        tokens_per_image: number of placeholders of an image.
    """

    def __init__(self, max_bytes: int, image_token_id: int, tokens_per_image: int) -> None:
        self.image_token_id = image_token_id
        self.tokens_per_image = tokens_per_image
        self._entries: ByteCache[int, _Prefix] = ByteCache(max_bytes)
        self._numbers = itertools.count()

    def find(self, token_ids: np.ndarray, images: Sequence[Hashable]) -> DynamicCache | None:
        """Return a cache of the longest beginning that is shared with an earlier conversation, or `None`.

        At least one token of the prompt is left to be read, and no image is cut in two. The cache may be changed.

        Args:
            token_ids: int64 array of shape (L,), the prompt.
            images: sequence of the keys of its encoded images.
        """
        best, longest = None, 0
        for key, prefix in self._entries.items():
            length = self._shared(prefix, token_ids, images)
            if length > longest:
                best, longest = key, length
        found = None if best is None else self._entries.get(best)  # which marks it as used
        if found is None:
            return None
        cache = DynamicCache()
        for index, (keys, values) in enumerate(found.layers):
            cache.update(keys[:, :, :longest], values[:, :, :longest], index)
        return cache

    def store(self, token_ids: np.ndarray, images: Sequence[Hashable], cache: Any) -> None:
        """Keep the cache of a conversation, in place of those of its beginnings.

        Args:
            token_ids: int64 array of shape (L,), prompt and answer.
            images: sequence of the keys of its encoded images.
            cache: `DynamicCache` after it, of at most L tokens.
        """
        layers = getattr(cache, "layers", ())
        if not layers or any(type(layer) is not DynamicLayer or not layer.is_initialized for layer in layers):
            return
        pairs = tuple((layer.keys, layer.values) for layer in layers)
        length = pairs[0][0].shape[-2]
        if length > len(token_ids) or any(keys.shape[0] != 1 or keys.shape[-2] != length for keys, _ in pairs):
            return
        new = _Prefix(token_ids[:length].copy(), tuple(images), pairs)
        for key, old in self._entries.items():
            if len(old.token_ids) <= length and self._shared(old, new.token_ids, new.images, whole=True) == len(
                old.token_ids
            ):
                self._entries.remove(key)
        size = sum(tensor.numel() * tensor.element_size() for pair in pairs for tensor in pair)
        self._entries.put(next(self._numbers), new, size + new.token_ids.nbytes)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def stats(self) -> CacheStats:
        """Return numbers of conversations and bytes; look-ups without any shared token are not counted."""
        return self._entries.stats()

    def _shared(self, prefix: _Prefix, token_ids: np.ndarray, images: Sequence[Hashable], whole: bool = False) -> int:
        """Return how many tokens a prefix and a prompt have in common; with `whole`, up to the whole prompt."""
        limit = min(len(prefix.token_ids), len(token_ids) if whole else len(token_ids) - 1)
        differ = prefix.token_ids[:limit] != token_ids[:limit]
        length = int(differ.argmax()) if differ.any() else limit
        starts = np.flatnonzero(token_ids == self.image_token_id)[:: self.tokens_per_image]
        same = 0
        while same < min(len(images), len(prefix.images)) and images[same] == prefix.images[same]:
            same += 1
        for index, start in enumerate(starts.tolist()):
            if start < length < start + self.tokens_per_image or (index >= same and start < length):
                return start
        return length
