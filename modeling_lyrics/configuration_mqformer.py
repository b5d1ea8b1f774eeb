"""Configuration of the MQ-Former."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from .configuration_base import CheckedConfig


@strict
class LyricsMQFormerConfig(CheckedConfig):
    """Configuration of the MQ-Former, a BERT encoder with two sets of learned queries.

    Args:
        num_visual_queries, num_grounding_queries: V and G; the visual ones come first.
        encoder_hidden_size: width of the vision features that the visual queries attend to.
        region_hidden_size: width of the region features that the grounding queries attend to.
        cross_attention_frequency: cross-attention stands in every n-th layer, from layer 0 on.
        normalize_vision_features: put a learned LayerNorm before the vision features (BLIP-2 does so for CLIP).
        region_attention_gain: how far apart the scores of regions begin in a model that is trained from nothing: for
            features of unit variance this number's square is their standard deviation. By default they begin as all
            else, with `initializer_range`, and each grounding query sees the mean of all regions, which small models
            hardly get away from.
        num_region_positions: so many of an image's first regions, which are its best, also say which one they are when
            they are attended to, so that a grounding query can settle on the n-th. With 0, as in the paper, they are a
            set without order.
        region_box_octaves: give the grounding queries each region's box as waves too, sines and cosines whose
            frequencies double so many times, for a model that is trained from nothing: four bare numbers among the
            features of a region are hard to tell a place from. With 0, as in the paper, there are none.
        region_nothing: let a grounding query attend to nothing instead of regions, a learned key whose value is zero,
            so that queries that are left over need not show some object twice. The paper's cannot.
        vocab_size: BERT's 30,522 tokens, and `[BOS]`, `[DEC]` and `[MLM]` for the first training stage.
    """

    model_type = "lyrics_mqformer"
    base_config_key = "mqformer_config"

    vocab_size: int = 30525
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-12
    pad_token_id: int | None = 0
    cross_attention_frequency: int = 2
    num_visual_queries: int = 32
    num_grounding_queries: int = 64
    encoder_hidden_size: int = 1024
    region_hidden_size: int = 260
    normalize_vision_features: bool = True
    region_attention_gain: float | int | None = None
    num_region_positions: int = 0
    region_box_octaves: int = 0
    region_nothing: bool = False

    @property
    def region_input_size(self) -> int:
        """Width of a region as the grounding queries attend to it: its features, and the waves of its box."""
        return self.region_hidden_size + 4 * 2 * self.region_box_octaves

    @property
    def num_queries(self) -> int:
        """V + G: how many positions an image takes in the language model."""
        return self.num_visual_queries + self.num_grounding_queries

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: head width, and at least one query."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"LyricsMQFormerConfig: hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        if self.num_visual_queries < 0 or self.num_grounding_queries < 0 or self.num_queries == 0:
            raise ValueError(
                f"LyricsMQFormerConfig: num_visual_queries={self.num_visual_queries} and num_grounding_queries="
                f"{self.num_grounding_queries} must not be negative, and at least one must be positive."
            )
        for name in ("num_region_positions", "region_box_octaves"):
            if getattr(self, name) < 0:
                raise ValueError(f"LyricsMQFormerConfig: {name}={getattr(self, name)} is negative.")


__all__ = ["LyricsMQFormerConfig"]
