"""Configuration of the MQ-Former."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from .configuration_base import NOT_NEGATIVE, POSITIVE, RATE, CheckedConfig, check_numbers


@strict
class LyricsMQFormerConfig(CheckedConfig):
    """Configuration of the MQ-Former, a BERT encoder with two sets of learned queries.

    The options that begin with `region_` and `num_region_positions` help a model that is trained from random weights.
    They are off by default, as in the paper.

    Args:
        vocab_size: number of tokens; BERT's 30,522, and `[BOS]`, `[DEC]` and `[MLM]` of the first training stage.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: sizes of the encoder.
        hidden_act: activation function of the feed-forward networks.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout.
        max_position_embeddings: longest text in tokens.
        initializer_range: standard deviation of new weights.
        layer_norm_eps: epsilon of the LayerNorms.
        pad_token_id: token id of padding.
        cross_attention_frequency: distance between two layers with cross-attention; layer 0 has it.
        num_visual_queries, num_grounding_queries: V and G; the visual queries come first.
        encoder_hidden_size: width of the vision features that the visual queries attend to.
        region_hidden_size: width of the region features that the grounding queries attend to.
        normalize_vision_features: bool, whether a learned LayerNorm follows the vision features, as in BLIP-2 for CLIP.
        region_attention_gain: initialization gain of the query and key projections of grounding attention. For inputs
            of unit variance, its square is the standard deviation of the logits. `None` uses `initializer_range`:
            attention is then nearly uniform at first, which small models hardly change.
        num_region_positions: number of regions per image, best first, whose keys get a learned position embedding, so
            that a query can attend to the n-th region. With 0, regions are a set without order.
        region_box_octaves: number of frequencies of a sinusoidal encoding of each region's box, beside its features;
            each frequency is twice the one before. 0 for none.
        region_nothing: bool, whether a learned key with a zero value is prepended to the regions, so that a grounding
            query can attend to nothing.
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
        """Width of a region as the grounding queries attend to it: features and box encoding."""
        return self.region_hidden_size + 4 * 2 * self.region_box_octaves

    @property
    def num_queries(self) -> int:
        """V + G: number of positions that an image takes in the language model."""
        return self.num_visual_queries + self.num_grounding_queries

    def validate_architecture(self) -> None:
        """Check sizes, rates, the width of the heads and the numbers of queries (called by `@strict`)."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
        inputs = ("max_position_embeddings", "encoder_hidden_size", "region_hidden_size", "cross_attention_frequency")
        check_numbers(self, POSITIVE, *sizes, *inputs, "layer_norm_eps")
        check_numbers(self, RATE, "hidden_dropout_prob", "attention_probs_dropout_prob")
        check_numbers(self, NOT_NEGATIVE, "initializer_range")
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
