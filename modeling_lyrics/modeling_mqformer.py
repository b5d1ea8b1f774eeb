"""The MQ-Former: a BERT encoder with two sets of learned queries, for the whole image and for its objects.

Queries and text share the self-attention of every layer, and have a feed-forward network each. Every
`cross_attention_frequency`-th layer has two further attentions with weights of their own: the visual queries attend to
the vision encoder's features, and the grounding queries to the refiner's region features. Visual queries come first,
then grounding queries, then the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .bert_blocks import AttentionBlock, FeedForwardBlock, KeyValue, prepare_attention_mask
from .checkpoint_model import NativeCheckpointModel
from .configuration_mqformer import LyricsMQFormerConfig
from .mqformer_key_values import LayerKeyValues, LyricsImageKeyValues

KeptPart = Literal["all", "queries", "text"]
Recomputed = Literal["nothing", "feed_forward", "layers"]


@dataclass
class LyricsMQFormerOutput(ModelOutput):
    """Output of the MQ-Former. N images, V + G queries, L text positions.

    Attributes:
        last_hidden_state: float tensor of shape (N, V + G + L, hidden).
        hidden_states: tuple of the input of the first layer and the output of each layer, when asked for.
        attentions: tuple of tensors of shape (N, heads, V + G + L, V + G + L), self-attention of each layer, when asked
            for (eager only).
        cross_attentions: tuple of tensors of shape (N, heads, V, patches), of the visual queries over the vision
            features; recorded with `attentions`.
        grounding_attentions: tuple of tensors of shape (N, heads, G, regions), of the grounding queries over the
            regions; recorded with `output_grounding_attentions=True`, and empty where no image has regions. With
            `region_nothing` a row sums to less than 1.
        image_key_values: `LyricsImageKeyValues`, with `project_only=True`.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    grounding_attentions: tuple[torch.Tensor, ...] | None = None
    image_key_values: LyricsImageKeyValues | None = None


class LyricsMQFormerEmbeddings(nn.Module):
    """Word and position embeddings of the text behind the queries, under one LayerNorm; queries have no position."""

    def __init__(self, config: LyricsMQFormerConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        query_embeds: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """Embed the text and append it to the queries; either may be `None`.

        Args:
            query_embeds: float tensor of shape (N, Q, hidden).
            input_ids, position_ids: int64 tensors of shape (N, L).

        Returns:
            float tensor of shape (N, Q + L, hidden).
        """
        parts = [] if query_embeds is None else [query_embeds]
        if input_ids is not None:
            if position_ids is None:
                position_ids = self._default_positions(input_ids)
            _check_range("input_ids", input_ids, self.word_embeddings.num_embeddings)
            _check_range("position_ids", position_ids, self.position_embeddings.num_embeddings)
            parts.append(self.word_embeddings(input_ids) + self.position_embeddings(position_ids))
        return self.dropout(self.layer_norm(torch.cat(parts, dim=1)))

    def _default_positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the positions from 0 of a text, shape (1, L)."""
        length, limit = input_ids.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(
                f"The MQ-Former's text has {length} tokens, but it has positions for {limit} only; shorten the text."
            )
        return torch.arange(length, device=input_ids.device).unsqueeze(0)


def _check_range(name: str, values: torch.Tensor, limit: int) -> None:
    """Raise a `ValueError` for ids or positions outside of [0, limit), on a CPU; another device would have to wait."""
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not values.numel():
        return
    smallest, largest = values.aminmax()
    if smallest < 0 or largest >= limit:
        raise ValueError(
            f"The MQ-Former's {name} must be in [0, {limit - 1}], but range from {int(smallest)} to {int(largest)}: "
            "take the model's own tokenizer, and shorten a text that is too long."
        )


class LyricsMQFormerLayer(GradientCheckpointingLayer):
    """Self-attention over queries and text, cross-attention of each set of queries, two feed-forward networks."""

    def __init__(self, config: LyricsMQFormerConfig, layer_idx: int) -> None:
        super().__init__()
        self.num_visual_queries = config.num_visual_queries
        self.num_queries = config.num_queries
        self.self_attention = AttentionBlock(config, config.hidden_size)
        self.visual_cross_attention = None
        self.grounding_cross_attention = None
        if layer_idx % config.cross_attention_frequency == 0:
            if config.num_visual_queries:
                self.visual_cross_attention = AttentionBlock(config, config.encoder_hidden_size)
            if config.num_grounding_queries:
                self.grounding_cross_attention = AttentionBlock(
                    config, config.region_input_size, config.num_region_positions, config.region_nothing
                )
                if config.region_attention_gain is not None:
                    _set_attention_init_gain(self.grounding_cross_attention, config.region_attention_gain)
        self.query_mlp = FeedForwardBlock(config)
        self.text_mlp = FeedForwardBlock(config)

    def forward(
        self,
        hidden_states: torch.Tensor | None,
        attention_mask: Any = None,
        key_values: LayerKeyValues | None = None,
        encoder_attention_mask: Any = None,
        region_attention_mask: Any = None,
        encoder_hidden_states: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        text_only: bool = False,
        kept: KeptPart = "all",
        image_rows: torch.Tensor | None = None,
        recompute: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Apply the layer, or only project keys and values.

        A projection is a call of the layer, so that hooks on it (of FSDP, of offload) run.

        Args:
            hidden_states: float tensor of shape (N, Q + L, hidden); with `None` the layer returns the keys and values
                of the features.
            attention_mask, encoder_attention_mask, region_attention_mask: masks of `prepare_attention_mask`.
            key_values: keys and values of the features, instead of the features.
            encoder_hidden_states: float tensor of shape (N, P, encoder_hidden_size).
            region_features: float tensor of shape (N, R, region_input_size).
            text_only: whether there are no queries.
            kept: part whose states are computed; the self-attention sees all of them.
            image_rows: int64 tensor of shape (N,), the image of each row among those of `key_values`; they are selected
                here, so that a layer that is computed again keeps no copies.
            recompute: bool, whether the feed-forward networks are computed again in the backward pass.
            kwargs: further arguments of the attention implementation.

        Returns:
            float tensor of shape (N, Q + L, hidden), or of the part that is kept, or the keys and values.
        """
        if key_values is None and not text_only:
            key_values = self._project(encoder_hidden_states, region_features)
        if hidden_states is None:
            return key_values
        if image_rows is not None and key_values is not None:
            key_values = _select(key_values[0], image_rows), _select(key_values[1], image_rows)
        key_value = self.self_attention.key_value(hidden_states)
        if kept != "all":
            rows = slice(self.num_queries) if kept == "queries" else slice(self.num_queries, None)
            hidden_states = hidden_states[:, rows]
            attention_mask = None if attention_mask is None else attention_mask[:, :, rows]
            key_values = None if kept == "text" else key_values
        states, _ = self.self_attention(hidden_states, key_value, attention_mask, **kwargs)
        if key_values is None:
            return self.text_mlp(states, recompute)
        visual, grounding, text = states.tensor_split((self.num_visual_queries, self.num_queries), dim=1)
        if self.visual_cross_attention is not None:
            visual, _ = self.visual_cross_attention(visual, key_values[0], encoder_attention_mask, **kwargs)
        if self.grounding_cross_attention is not None:
            grounding, _ = self.grounding_cross_attention(grounding, key_values[1], region_attention_mask, **kwargs)
        queries = self.query_mlp(torch.cat([visual, grounding], dim=1), recompute)
        if text.shape[1] == 0:
            return queries
        return torch.cat([queries, self.text_mlp(text, recompute)], dim=1)

    def _project(
        self, encoder_hidden_states: torch.Tensor | None, region_features: torch.Tensor | None
    ) -> LayerKeyValues:
        """Return keys and values of the features for each cross-attention that the layer has."""
        visual = grounding = None
        if self.visual_cross_attention is not None:
            visual = self.visual_cross_attention.key_value(encoder_hidden_states)
        if self.grounding_cross_attention is not None and region_features is not None:
            grounding = self.grounding_cross_attention.key_value(region_features)
        return visual, grounding


def _select(key_value: KeyValue | None, rows: torch.Tensor) -> KeyValue | None:
    """Return the keys and values of the images at `rows`."""
    return None if key_value is None else (key_value[0].index_select(0, rows), key_value[1].index_select(0, rows))


def _box_waves(boxes: torch.Tensor, octaves: int) -> torch.Tensor:
    """Return a sinusoidal encoding of boxes, (..., 4) in [0, 1] -> (..., 8 * octaves): sines, then cosines."""
    turns = torch.pi * 2.0 ** torch.arange(octaves, device=boxes.device)
    angles = (boxes.unsqueeze(-1) * turns).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _set_attention_init_gain(attention: AttentionBlock, gain: float) -> None:
    """Set the initialization gain of an attention's linear layers, for inputs of unit variance.

    `_init_weights` reads the attribute `initializer_std` that is set here.
    """
    gains = {attention.query: gain, attention.key_value.key: gain, attention.key_value.value: 1.0, attention.dense: 1.0}
    for linear, own in gains.items():
        linear.initializer_std = own * linear.in_features**-0.5


class LyricsMQFormerPreTrainedModel(NativeCheckpointModel):
    """Base class of the MQ-Former: weight initialization and loading."""

    config_class = LyricsMQFormerConfig
    config: LyricsMQFormerConfig
    base_model_prefix = "mqformer"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    # FlashAttention takes no block mask: Transformers would drop the masks that keep text and queries apart.
    _supports_flash_attn = False
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["LyricsMQFormerEmbeddings", "LyricsMQFormerLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module of a new model; linear layers may bring their own `initializer_std`."""
        std = getattr(module, "initializer_std", None)
        if isinstance(module, nn.Linear) and std is not None:
            init.normal_(module.weight, std=std)
            init.zeros_(module.bias)
            return
        super()._init_weights(module)
        if isinstance(module, LyricsMQFormerModel):
            init.normal_(module.query_tokens, std=self.config.initializer_range)


class LyricsMQFormerModel(LyricsMQFormerPreTrainedModel):
    """The MQ-Former with its learned queries and, where configured, the LayerNorm over the vision features.

    Args:
        config: `LyricsMQFormerConfig`.
    """

    main_input_name = "input_ids"
    _can_record_outputs = {
        "hidden_states": LyricsMQFormerLayer,
        "attentions": OutputRecorder(AttentionBlock, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(AttentionBlock, index=1, layer_name="visual_cross_attention"),
        "grounding_attentions": OutputRecorder(AttentionBlock, index=1, layer_name="grounding_cross_attention"),
    }

    def __init__(self, config: LyricsMQFormerConfig) -> None:
        super().__init__(config)
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_queries, config.hidden_size))
        self.vision_layer_norm = (
            nn.LayerNorm(config.encoder_hidden_size) if config.normalize_vision_features else nn.Identity()
        )
        self.embeddings = LyricsMQFormerEmbeddings(config)
        self.layers = nn.ModuleList(
            LyricsMQFormerLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings of the text."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the word embeddings of the text."""
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        query_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        text_only: bool = False,
        image_key_values: LyricsImageKeyValues | None = None,
        project_only: bool = False,
        kept: KeptPart = "all",
        image_rows: torch.Tensor | None = None,
        recompute: Recomputed = "nothing",
        **kwargs: Any,
    ) -> LyricsMQFormerOutput:
        """Run the queries, the text, or both.

        Args:
            input_ids: int64 tensor of shape (N, L), the text beside the queries, or `None`.
            attention_mask: tensor of shape (N, L), 1 for text and 0 for padding; or of shape (N, Q + L, Q + L) for
                queries and text together, 1 where the row may attend to the column.
            position_ids: int64 tensor of shape (N, L); 0, 1, ... by default.
            query_embeds: float tensor of shape (N or 1, V + G, hidden); the learned queries by default.
            encoder_hidden_states: float tensor of shape (N, P, encoder_hidden_size), the vision features.
            encoder_attention_mask: tensor of shape (N, P), 1 for a feature and 0 for padding; all features by default.
            region_features: float tensor of shape (N, R, region_hidden_size), or `None` when no image has regions.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding. In an image without regions
                the grounding queries have a zero context.
            text_only: whether the text runs alone, without queries and cross-attention.
            image_key_values: `LyricsImageKeyValues` of N images, instead of the features and their masks.
            image_rows: int64 tensor of shape (N,), the image of each row among those of `image_key_values`, which may
                then hold any number of images.
            project_only: whether only the `image_key_values` of the features are computed and returned.
            kept: part that is returned where queries and text run together. The last layer then computes the states of
                `"queries"` or `"text"` alone, which do not change by it.
            recompute: part that the backward pass computes again and does not keep: `"nothing"`, the wide states of the
                `"feed_forward"` networks, or whole `"layers"`. Results and gradients are the same.
            kwargs: further arguments of the attention implementation, and what to record.

        Returns:
            `LyricsMQFormerOutput`, with a `last_hidden_state` of shape (N, V + G + L, hidden), or of the part that is
            kept.

        Raises:
            ValueError: an input of the queries or of the text is missing, or shapes do not match.
        """
        if image_key_values is not None and (encoder_hidden_states is not None or region_features is not None):
            raise ValueError("Pass either features or image_key_values, not both.")
        if image_key_values is None:
            encoder_hidden_states, region_features = self._check_inputs(
                input_ids, encoder_hidden_states, region_features, region_attention_mask, text_only
            )
            if region_features is None:
                region_attention_mask = None
        if project_only:
            masks = (encoder_attention_mask, region_attention_mask)
            projected = self._project(encoder_hidden_states, region_features, *masks)
            return LyricsMQFormerOutput(image_key_values=projected)
        others = (image_rows, input_ids, encoder_hidden_states, region_features)
        query_embeds = None if text_only else self._expand_queries(query_embeds, image_key_values, *others)
        hidden_states = self.embeddings(query_embeds, input_ids, position_ids)
        text_length = 0 if input_ids is None else input_ids.shape[1]
        self_mask: Any = self._prepare_self_attention_mask(attention_mask, hidden_states.shape[1], text_length)
        masks = (encoder_attention_mask, region_attention_mask)
        if image_key_values is not None:
            masks = image_key_values.select_masks(image_rows)
        encoder_attention_mask, region_attention_mask = self._prepare_cross_attention_masks(*masks)
        both = not text_only and text_length > 0
        sliceable = self_mask is None or isinstance(self_mask, torch.Tensor)  # a block mask is not
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            again = recompute == "layers" and torch.is_grad_enabled() and not layer.gradient_checkpointing
            run_layer: Any = partial(checkpoint, layer, use_reentrant=False) if again else layer
            hidden_states = run_layer(
                hidden_states,
                self_mask,
                None if image_key_values is None else image_key_values.layers[index],
                encoder_attention_mask,
                region_attention_mask,
                encoder_hidden_states,
                region_features,
                text_only,
                kept if is_last and both and sliceable else "all",
                image_rows,
                recompute == "feed_forward",
                **kwargs,
            )
        if both and not sliceable and kept != "all":
            queries, text = hidden_states.tensor_split((self.config.num_queries,), dim=1)
            hidden_states = queries if kept == "queries" else text
        return LyricsMQFormerOutput(last_hidden_state=hidden_states)

    def _check_inputs(
        self,
        input_ids: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor | None,
        region_features: torch.Tensor | None,
        region_attention_mask: torch.Tensor | None,
        text_only: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Check that the inputs are complete, and return the features, normalized and cast; no region gives `None`."""
        config, dtype = self.config, self.query_tokens.dtype
        if text_only:
            if input_ids is None:
                raise ValueError("text_only=True needs input_ids.")
            return None, None
        if config.num_visual_queries and encoder_hidden_states is None:
            raise ValueError(
                f"The {config.num_visual_queries} visual queries need encoder_hidden_states; for text without an "
                "image pass text_only=True."
            )
        if encoder_hidden_states is not None:
            encoder_hidden_states = self.vision_layer_norm(encoder_hidden_states.to(dtype))
        if region_features is None or not region_features.shape[1]:
            return encoder_hidden_states, None
        if region_features.shape[-1] != config.region_hidden_size:
            raise ValueError(
                f"region_features has width {region_features.shape[-1]}, but this MQ-Former attends to regions of "
                f"width {config.region_hidden_size}: model and refiner do not belong together."
            )
        if region_attention_mask is not None:
            # padding may hold anything, even NaN, and must not reach the attention's products
            region_features = region_features.masked_fill(~region_attention_mask.bool().unsqueeze(-1), 0.0)
        if config.region_box_octaves:
            waves = _box_waves(region_features[..., -4:].float(), config.region_box_octaves)
            region_features = torch.cat([region_features, waves.to(region_features.dtype)], dim=-1)
        return encoder_hidden_states, region_features.to(dtype)

    def _project(
        self,
        encoder_hidden_states: torch.Tensor | None,
        region_features: torch.Tensor | None,
        encoder_attention_mask: torch.Tensor | None,
        region_attention_mask: torch.Tensor | None,
    ) -> LyricsImageKeyValues:
        """Return the keys and values of all layers."""
        features = {"encoder_hidden_states": encoder_hidden_states, "region_features": region_features}
        num_images = next((len(given) for given in features.values() if given is not None), 0)
        layers = tuple(layer(None, **features) for layer in self.layers)
        return LyricsImageKeyValues(layers, encoder_attention_mask, region_attention_mask, num_images)

    def _expand_queries(
        self,
        query_embeds: torch.Tensor | None,
        image_key_values: LyricsImageKeyValues | None,
        *others: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return one set of queries for each image."""
        query_embeds = self.query_tokens if query_embeds is None else query_embeds
        if query_embeds.shape[1] != self.config.num_queries:
            raise ValueError(f"query_embeds has {query_embeds.shape[1]} queries, the model {self.config.num_queries}.")
        sizes = [query_embeds.shape[0]] if image_key_values is None else [image_key_values.num_images]
        sizes = [other.shape[0] for other in others if other is not None] or sizes
        return query_embeds.expand(sizes[0], -1, -1)

    def _prepare_self_attention_mask(self, mask: torch.Tensor | None, length: int, text_length: int) -> Any:
        """Convert a mask of the text (N, L), or of queries and text (N, Q + L, Q + L), for the attention."""
        if mask is not None and mask.dim() == 2:
            mask = nn.functional.pad(mask.bool(), (length - text_length, 0), value=True)
        if mask is not None and mask.shape[-1] != length:
            raise ValueError(
                f"The MQ-Former's attention_mask covers {mask.shape[-1] - (length - text_length)} text positions; "
                f"input_ids has {text_length}."
            )
        return self._broadcast_mask(mask, length)

    def _prepare_cross_attention_masks(
        self, encoder_attention_mask: torch.Tensor | None, region_attention_mask: torch.Tensor | None
    ) -> tuple[Any, Any]:
        """Convert both masks (N, keys) for the attention; the learned region that shows nothing is always seen."""
        config = self.config
        if region_attention_mask is not None and config.region_nothing:
            region_attention_mask = nn.functional.pad(region_attention_mask.bool(), (1, 0), value=True)
        return (
            self._broadcast_mask(encoder_attention_mask, config.num_visual_queries),
            self._broadcast_mask(region_attention_mask, config.num_grounding_queries),
        )

    def _broadcast_mask(self, mask: torch.Tensor | None, num_rows: int) -> Any:
        """Convert a mask (N, keys) or (N, rows, keys) for the attention."""
        if mask is None:
            return None
        allowed = mask.bool()[:, None, None, :] if mask.dim() == 2 else mask.bool()[:, None]
        implementation = self.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
        return prepare_attention_mask(allowed, num_rows, implementation, self.query_tokens.dtype)


__all__ = ["LyricsMQFormerModel", "LyricsMQFormerOutput", "LyricsMQFormerPreTrainedModel"]
