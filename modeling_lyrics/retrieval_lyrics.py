"""What a trained first stage is used for: features to search with, scores of pairs, captions, and masked objects.

`LyricsForPreTraining` inherits these methods. `LyricsProcessor` makes their inputs (`prepare_images`, `prepare_texts`,
`prepare_masked`) and decodes what they return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput, can_return_tuple

from .mqformer_attention_masks import Segment, SegmentedText, run_mqformer

_WEIGHT_OF = {
    "contrastive": "itc_weight",
    "matching": "itm_weight",
    "captioning": "icg_weight",
    "spatial": "msp_weight",
}


@dataclass
class LyricsMatchingOutput(ModelOutput):
    """Scores of N pairs of an image and a text.

    Attributes:
        logits: float tensor of shape (N, 2), of a wrong and of a right pair.
        scores: float tensor of shape (N,) in [0, 1], probability that image and text belong together.
    """

    logits: torch.Tensor | None = None
    scores: torch.Tensor | None = None


@dataclass
class LyricsMaskedOutput(ModelOutput):
    """Predictions of K masked tokens, padded.

    Attributes:
        logits: float tensor of shape (K, vocabulary).
        token_ids: int64 tensor of shape (K,), the most probable token.
        scores: float tensor of shape (K,) in [0, 1], its probability.
    """

    logits: torch.Tensor | None = None
    token_ids: torch.Tensor | None = None
    scores: torch.Tensor | None = None


class RetrievalMethods:
    """Methods of the first stage beside training; each needs the head of one objective.

    A text is `[BOS] objects [CLS] caption [SEP]`. A query of a search has no objects, so that it is
    `[BOS] [CLS] query [SEP]`.
    """

    config: Any
    model: Any
    contrastive: Any
    matching: Any
    captioning: Any
    spatial: Any
    lm_head: Any

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Return features of N images that can be compared with those of texts and of other images.

        Args:
            pixel_values: float tensor of shape (N, 3, H, W).
            region_features: float tensor of shape (N, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding.
            kwargs: ignored, except `return_dict=False` for a tuple.

        Returns:
            `pooler_output`, float32 of shape (N, projection_size) and length 1, and `last_hidden_state`, the states of
            the queries (N, V + G, hidden).

        Raises:
            ValueError: the model was built without the contrastive objective.
        """
        self._require_head("contrastive", "get_image_features")
        images = self.model(pixel_values, region_features, region_attention_mask)
        queries, _ = run_mqformer(self.model.mqformer, self.contrastive.table, None, images.key_values)
        return _with_pooling(queries, self.contrastive.image_features(queries))

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Return features of N texts that can be compared with those of images and of other texts.

        Args:
            input_ids, position_ids, segment_ids: int64 tensors of shape (N, L), see `LyricsForPreTraining.forward`.
            kwargs: ignored, except `return_dict=False` for a tuple.

        Returns:
            `pooler_output`, float32 of shape (N, projection_size) and length 1, and `last_hidden_state`, the states of
            the tokens (N, L, hidden).

        Raises:
            ValueError: the model was built without the contrastive objective.
        """
        self._require_head("contrastive", "get_text_features")
        text = SegmentedText(input_ids, position_ids, segment_ids)
        _, states = run_mqformer(self.model.mqformer, self.contrastive.table, text)
        return _with_pooling(states, self.contrastive.text_features(states, text))

    @can_return_tuple
    def match(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> LyricsMatchingOutput:
        """Score N pairs of an image and a text; one image goes with all texts, and one text with all images.

        The visual queries compare the image with the caption, the grounding queries its regions with the objects of the
        text. Where a text has no objects, the visual queries decide alone.

        Args:
            pixel_values: float tensor of shape (N or 1, 3, H, W).
            input_ids, position_ids, segment_ids: int64 tensors of shape (N or 1, L), see
                `LyricsForPreTraining.forward`.
            region_features: float tensor of shape (N or 1, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N or 1, R), 1 for a region and 0 for padding.
            kwargs: ignored, except `return_dict=False` for a tuple.

        Raises:
            ValueError: the numbers of images and texts differ and neither is 1, or the model was built without the
                matching objective.
        """
        self._require_head("matching", "match")
        num_images, num_texts = len(pixel_values), len(input_ids)
        if num_images != num_texts and 1 not in (num_images, num_texts):
            raise ValueError(f"match takes as many images as texts, or one of either: got {num_images}, {num_texts}.")
        images = self.model(pixel_values, region_features, region_attention_mask)
        text = SegmentedText(input_ids, position_ids, segment_ids)
        rows = torch.arange(max(num_images, num_texts), device=input_ids.device)
        key_values = images.key_values if num_images == len(rows) else images.key_values.select(rows * 0)
        text = text if num_texts == len(rows) else text.select(rows * 0)
        queries, _ = run_mqformer(self.model.mqformer, self.matching.table, text, key_values, "queries")
        logits = self.matching.logits(queries, text.have_objects()).float()
        return LyricsMatchingOutput(logits=logits, scores=logits.softmax(dim=-1)[:, 1])

    @torch.no_grad()
    def caption(
        self,
        pixel_values: torch.Tensor,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        *,
        decoder_start_token_id: int,
        eos_token_id: int,
        pad_token_id: int = 0,
        max_new_tokens: int = 40,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Write a caption of each of N images, by greedy search.

        Args:
            pixel_values: float tensor of shape (N, 3, H, W).
            region_features: float tensor of shape (N, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding.
            decoder_start_token_id, eos_token_id, pad_token_id: ids of `[DEC]`, `[SEP]` and padding, which
                `LyricsProcessor.caption_token_ids` returns.
            max_new_tokens: longest caption in tokens, `[SEP]` included.
            kwargs: ignored.

        Returns:
            int64 tensor of shape (N, L), the tokens after `[DEC]`; padding follows `[SEP]`.

        Raises:
            ValueError: `max_new_tokens` is out of range, or the model was built without the captioning objective.
        """
        self._require_head("captioning", "caption")
        limit = self.config.mqformer_config.max_position_embeddings
        if not 1 <= max_new_tokens <= limit:
            raise ValueError(f"max_new_tokens must be between 1 and the {limit} positions, got {max_new_tokens}.")
        key_values = self.model(pixel_values, region_features, region_attention_mask).key_values
        tokens = torch.full((len(pixel_values), 1), decoder_start_token_id, device=pixel_values.device)
        done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(max_new_tokens):
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            text = SegmentedText(tokens, positions, torch.full_like(tokens, Segment.CAPTION.value))
            _, states = run_mqformer(self.model.mqformer, self.captioning.table, text, key_values, "text")
            following = self.lm_head(states[:, -1]).argmax(dim=-1).masked_fill(done, pad_token_id)
            tokens = torch.cat([tokens, following[:, None]], dim=1)  # (N, L + 1)
            done |= following == eos_token_id
            if done.all():
                break
        return tokens[:, 1:]

    @can_return_tuple
    def fill(
        self,
        pixel_values: torch.Tensor,
        masked_input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        masked_positions: torch.Tensor,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> LyricsMaskedOutput:
        """Predict masked labels and coordinates of the objects of N images.

        Args:
            pixel_values: float tensor of shape (N, 3, H, W).
            masked_input_ids, position_ids, segment_ids: int64 tensors of shape (N, L), see
                `LyricsForPreTraining.forward`.
            masked_positions: int64 tensor of shape (K,), positions of masked tokens among the N * L.
            region_features: float tensor of shape (N, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding.
            kwargs: ignored, except `return_dict=False` for a tuple.

        Raises:
            ValueError: the model was built without the spatial objective.
        """
        self._require_head("spatial", "fill")
        images = self.model(pixel_values, region_features, region_attention_mask)
        text = SegmentedText(masked_input_ids, position_ids, segment_ids)
        _, states = run_mqformer(self.model.mqformer, self.spatial.table, text, images.key_values, "text")
        logits = self.lm_head(states.flatten(0, 1).index_select(0, masked_positions)).float()
        scores, token_ids = logits.softmax(dim=-1).max(dim=-1)
        return LyricsMaskedOutput(logits=logits, token_ids=token_ids, scores=scores)

    def _require_head(self, head: str, method: str) -> None:
        """Raise a `ValueError` where the model was built without the objective that a method needs."""
        if getattr(self, head) is None:
            raise ValueError(
                f"{type(self).__name__}.{method} needs the {head} head, but {_WEIGHT_OF[head]} is 0 in the model's "
                "configuration: it was not trained. Load a first stage that was trained with it."
            )


def _with_pooling(states: torch.Tensor, features: torch.Tensor) -> BaseModelOutputWithPooling:
    """Return states (N, L, hidden) and features (N, projection_size) as Transformers returns them."""
    output: Any = BaseModelOutputWithPooling
    return output(last_hidden_state=states, pooler_output=features)


__all__ = ["LyricsMaskedOutput", "LyricsMatchingOutput", "RetrievalMethods"]
