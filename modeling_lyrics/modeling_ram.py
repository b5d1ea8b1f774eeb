"""RAM, the Recognize Anything Model (arXiv 2306.03514): an image tagger.

A Swin encoder (Transformers' own) encodes the image. A Query2Label head, cross-attention layers without self-attention,
has one query per tag. RAM's captioning branch is left out, since tagging does not use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .bert_blocks import AttentionBlock, FeedForwardBlock
from .checkpoint_model import NativeCheckpointModel
from .configuration_ram import RamConfig


@dataclass
class RamModelOutput(ModelOutput):
    """Image tokens of RAM.

    Attributes:
        last_hidden_state: float tensor of shape (batch, 1 + patches, Swin width); the first token is the mean of the
            others.
        image_embeds: float tensor of shape (batch, 1 + patches, tag_embedding_size), the projected tokens.
        hidden_states, attentions: tuples of the Swin encoder, when asked for.
    """

    last_hidden_state: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class RamTaggingOutput(ModelOutput):
    """Tags of RAM.

    Attributes:
        loss: scalar, mean binary cross-entropy, when labels are given.
        logits: float tensor of shape (batch, tags).
        tagging_embeds: float tensor of shape (batch, tags, hidden_size), the head's output before the classifier.
        hidden_states, attentions: tuples of the Swin encoder, when asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    tagging_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class RamPreTrainedModel(NativeCheckpointModel):
    """Base class of the RAM models: weight initialization and loading."""

    config_class = RamConfig
    config: RamConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["RamTaggingLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module of a new model."""
        super()._init_weights(module)
        if isinstance(module, RamForImageTagging):
            init.normal_(module.label_embeddings, std=self.config.initializer_range)


class RamModel(RamPreTrainedModel):
    """Image encoder of RAM: Swin, the mean token, and the projection to the width of the label embeddings."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__(config)
        self.vision_model = AutoModel.from_config(
            config.vision_config, trust_remote_code=False, add_pooling_layer=False
        )
        self.image_projection = nn.Linear(config.vision_config.hidden_size, config.tag_embedding_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the patch embedding."""
        return self.vision_model.get_input_embeddings()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor | None = None, **kwargs: Any) -> RamModelOutput:
        """Encode images.

        Args:
            pixel_values: float tensor of shape (batch, 3, image_size, image_size). Swin's shifted windows depend on the
                size, so that any other size is an error.
            kwargs: further arguments of the Swin encoder.

        Returns:
            `RamModelOutput`, with tokens of shape (batch, 1 + patches, width).
        """
        size = self.config.vision_config.image_size
        if pixel_values is None or pixel_values.shape[-2:] != (size, size):
            given = None if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(f"RAM takes pixel_values of shape (batch, 3, {size}, {size}), got {given}.")
        encoded = self.vision_model(pixel_values.to(self.dtype), **kwargs)
        patches = encoded.last_hidden_state
        tokens = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        return RamModelOutput(
            last_hidden_state=tokens,
            image_embeds=self.image_projection(tokens),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class RamTaggingLayer(nn.Module):
    """Cross-attention from tags to image tokens, and a feed-forward network."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.cross_attention = AttentionBlock(config, config.tag_embedding_size)
        self.mlp = FeedForwardBlock(config)

    def forward(self, tags: torch.Tensor, image_embeds: torch.Tensor) -> torch.Tensor:
        """Attend from `tags` (batch, tags, hidden) to `image_embeds` (batch, tokens, tag_embedding_size)."""
        attended, _ = self.cross_attention(tags, self.cross_attention.key_value(image_embeds))
        return self.mlp(attended)


class RamForImageTagging(RamPreTrainedModel):
    """RAM with its tagging head, which gives one logit for each tag of `config.id2label`."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__(config)
        self.model = RamModel(config)
        self.label_embeddings = nn.Parameter(torch.empty(config.num_labels or 0, config.tag_embedding_size))
        self.label_projection = (
            nn.Identity()
            if config.tag_embedding_size == config.hidden_size
            else nn.Linear(config.tag_embedding_size, config.hidden_size)
        )
        self.layers = nn.ModuleList(RamTaggingLayer(config) for _ in range(config.num_hidden_layers))
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RamTaggingOutput:
        """Compute the logits of all tags, and the loss where labels are given.

        Args:
            pixel_values: float tensor of shape (batch, 3, image_size, image_size).
            labels: tensor of shape (batch, tags), 1 where the image shows the tag.
            kwargs: further arguments of the Swin encoder.

        Returns:
            `RamTaggingOutput`, with logits of shape (batch, tags).
        """
        image = self.model(pixel_values, return_dict=True, **kwargs)
        queries = torch.relu(self.label_projection(self.label_embeddings))
        tags = queries.unsqueeze(0).expand(image.image_embeds.shape[0], -1, -1)
        for layer in self.layers:
            tags = layer(tags, image.image_embeds)
        logits = self.classifier(tags).squeeze(-1)
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
        return RamTaggingOutput(
            loss=loss,
            logits=logits,
            tagging_embeds=tags,
            hidden_states=image.hidden_states,
            attentions=image.attentions,
        )

    def fired(self, logits: torch.Tensor) -> torch.Tensor:
        """Return which tags have a probability strictly above their threshold, a bool tensor of shape (batch, tags).

        A tag of `suppressed_label_ids`, or with a logit that is NaN, is never reported.
        """
        threshold = torch.as_tensor(self.config.threshold, dtype=torch.float32, device=logits.device)
        fired = logits.float().sigmoid() > threshold
        if self.config.suppressed_label_ids:
            fired[:, self.config.suppressed_label_ids] = False
        return fired


__all__ = ["RamForImageTagging", "RamModel", "RamModelOutput", "RamPreTrainedModel", "RamTaggingOutput"]
