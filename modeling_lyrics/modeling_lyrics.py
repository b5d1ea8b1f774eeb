"""The Lyrics model: a vision encoder and the MQ-Former compress an image and its objects for a language model.

The module tree is LLaVA's (`model.language_model`, `lm_head`), which `generate`, TRL and PEFT expect. The visual
refiner is not part of the model. It is frozen, so its output is data that the processor computes once.

The file is longer than 500 lines since model and head stay together, as in Transformers' own models.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MultimodalBaseModelOutputWithPast,
    MultimodalCausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import logging
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple
from transformers.utils.import_utils import torch_compilable_check

from .configuration_lyrics import LyricsConfig
from .distributed import num_ranks
from .generation_lyrics import LyricsGenerationMixin
from .language_model_inputs import embed_for_layers, prepare_mask
from .logit_scaling import scale_logits
from .mixture_of_experts import balance_experts
from .modeling_lyrics_base import LyricsPreTrainedModel
from .modeling_mqformer import LyricsMQFormerModel, LyricsMQFormerOutput
from .published_checkpoint import DROPPED_BY_MODEL
from .vision_encoder import build_vision_model, prepare_parts, run_vision_model

logger = logging.get_logger(__name__)

IGNORE_INDEX = -100


@dataclass
class LyricsImageFeatures(BaseModelOutputWithPooling):
    """Encoded images, as `mm_encoder_outputs["image"]` takes them.

    Attributes:
        last_hidden_state: float tensor of shape (N, P, vision width), the features that the visual queries attended to.
        pooler_output: float tensor of shape (N, V + G, text width), the embeddings at the placeholders.
        hidden_states: tuple of the vision encoder's hidden states; `None` for those that were neither used nor asked
            for.
        attentions: tuple of the vision encoder's attention weights, when asked for.
        mqformer_output: `LyricsMQFormerOutput` of the queries; with `output_attentions` also of the text beside them.
    """

    mqformer_output: LyricsMQFormerOutput | None = None


class _ImageHiddenStates:
    """Mixin of outputs that gives access to the encoded images."""

    image_outputs: Any

    @property
    def image_hidden_states(self) -> torch.Tensor | None:
        """Projected image features (N, V + G, text width), or `None` where no image was encoded."""
        return None if self.image_outputs is None else _stack_features(self.image_outputs.pooler_output)


def _stack_features(features: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Return image features as one tensor (N, V + G, width); Transformers also passes them as a list."""
    return features if isinstance(features, torch.Tensor) else torch.stack(list(features))


@dataclass
class LyricsModelOutputWithPast(_ImageHiddenStates, MultimodalBaseModelOutputWithPast):
    """Output of `LyricsModel`: Transformers' fields, with `LyricsImageFeatures` as `image_outputs`.

    Attributes:
        router_logits: tuple of float tensors of shape (B * L, experts), one for each layer, of a mixture of experts
            that is asked for them.
    """

    router_logits: tuple[torch.Tensor, ...] | None = None


@dataclass
class LyricsCausalLMOutputWithPast(_ImageHiddenStates, MultimodalCausalLMOutputWithPast):
    """Output of `LyricsForConditionalGeneration`: Transformers' fields; `image_outputs` is `LyricsImageFeatures`.

    Attributes:
        router_logits: logits of the experts, those of `LyricsModelOutputWithPast`.
        aux_loss: scalar that balances the experts; `loss` has it with the language model's `router_aux_loss_coef`.
    """

    router_logits: tuple[torch.Tensor, ...] | None = None
    aux_loss: torch.Tensor | None = None


class LyricsModel(LyricsPreTrainedModel):
    """Vision encoder, MQ-Former, projection and language model, without a language modeling head.

    Args:
        config: `LyricsConfig`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", *DROPPED_BY_MODEL]

    def __init__(self, config: LyricsConfig) -> None:
        super().__init__(config)
        if str(config.mqformer_config._attn_implementation).startswith("flash"):
            config.mqformer_config._attn_implementation = "sdpa"  # flash attention would drop the MQ-Former's masks
        self.vision_model = build_vision_model(config.vision_config)
        self.mqformer = LyricsMQFormerModel._from_config(config.mqformer_config)
        self.language_projection = nn.Linear(config.mqformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.post_init()

    def train(self, mode: bool = True) -> LyricsModel:
        """Set the training mode; a part without trainable weights stays in evaluation mode.

        A frozen language model with gradient checkpointing is the exception, since its layers recompute in training
        mode only.
        """
        super().train(mode)
        recomputes = any(getattr(module, "gradient_checkpointing", False) for module in self.language_model.modules())
        for part in (self.vision_model, self.mqformer, *([] if recomputes else [self.language_model])):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what the vision encoder makes of N images: float tensor of shape (N, P, vision width).

        Args:
            pixel_values: float tensor of shape (N, 3, H, W), cast to the vision encoder's dtype.
        """
        return run_vision_model(self.vision_model, pixel_values, self.config.vision_feature_layer)[0]

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        mqformer_input_ids: torch.Tensor | None = None,
        mqformer_attention_mask: torch.Tensor | None = None,
        mqformer_position_ids: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> LyricsImageFeatures:
        """Encode N images: vision encoder, MQ-Former, projection.

        Args:
            pixel_values: float tensor of shape (N, 3, H, W), cast to the vision encoder's dtype.
            region_features: float tensor of shape (N, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding.
            mqformer_input_ids, mqformer_attention_mask, mqformer_position_ids: tensors of shape (N, L), the text of the
                MQ-Former.
            vision_features: float tensor of shape (N, P, vision width) of `get_vision_features`, instead of
                `pixel_values`: the vision encoder is not run.
            kwargs: further arguments of the encoders, such as `output_attentions`; with `output_hidden_states`, all
                hidden states of the vision encoder are returned.

        Returns:
            `LyricsImageFeatures`; the `pooler_output` of shape (N, V + G, text width) is what the language model
            receives.

        Raises:
            ValueError: there are neither or both of pixel values and vision features, no region features where the
                configuration requires them, or the tensors count different numbers of images.
        """
        if (pixel_values is None) == (vision_features is None):
            raise ValueError("get_image_features needs pixel_values, or vision_features instead.")
        self._check_image_inputs(
            pixel_values if vision_features is None else vision_features,
            region_features,
            region_attention_mask,
            mqformer_input_ids,
        )
        # no argument by name: `generate` keeps what this method names from the language model
        output_hidden_states = kwargs.pop("output_hidden_states", None)
        vision: Any = BaseModelOutputWithPooling()
        if vision_features is None:
            assert pixel_values is not None, "one of both is there"
            vision_features, vision = run_vision_model(
                self.vision_model,
                pixel_values,
                self.config.vision_feature_layer,
                output_hidden_states=bool(output_hidden_states or self.config.output_hidden_states),
                **kwargs,
            )
        records_all = kwargs.get("output_attentions") or self.config.output_attentions
        queried = self.mqformer(
            input_ids=mqformer_input_ids,
            attention_mask=mqformer_attention_mask,
            position_ids=mqformer_position_ids,
            encoder_hidden_states=vision_features,
            region_features=region_features,
            region_attention_mask=region_attention_mask,
            kept="all" if records_all else "queries",  # nobody reads the text after the last layer
            return_dict=True,
            **kwargs,
        )
        num_queries = self.config.mqformer_config.num_queries
        return LyricsImageFeatures(
            last_hidden_state=vision_features,
            pooler_output=self.language_projection(
                queried.last_hidden_state[:, :num_queries].to(self.language_projection.weight.dtype)
            ),
            hidden_states=vision.hidden_states,
            attentions=vision.attentions,
            mqformer_output=queried,
        )

    def _check_image_inputs(
        self,
        pixel_values: torch.Tensor | None,
        region_features: torch.Tensor | None,
        region_attention_mask: torch.Tensor | None,
        mqformer_input_ids: torch.Tensor | None,
    ) -> None:
        """Check that all inputs count the same images, and that there are region features where they are required."""
        counts = {
            "pixel_values": pixel_values,
            "region_features": region_features,
            "region_attention_mask": region_attention_mask,
            "mqformer_input_ids": mqformer_input_ids,
        }
        counts = {name: tensor.shape[0] for name, tensor in counts.items() if tensor is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Image inputs must have one row per image, but count {counts}.")
        if region_features is None and self.config.mqformer_config.num_grounding_queries:
            message = (
                "The images come without region_features, so the grounding queries see nothing. Let the processor "
                "refine the images, or give it `visual_objects`."
            )
            if self.config.require_objects:
                raise ValueError(message)
            logger.warning_once(message)

    def get_placeholder_mask(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """Return the positions of the placeholders as a bool tensor of shape (B, L, 1).

        Args:
            input_ids: int64 tensor of shape (B, L). With `None`, placeholders are found by their embedding, which needs
                an `image_token_id` inside the embedding table.
            inputs_embeds: float tensor of shape (B, L, text width).
            image_features: float tensor of shape (N, V + G, text width).

        Raises:
            ValueError: the number of placeholders differs from that of features; the message names both.
        """
        if input_ids is not None:
            mask = input_ids == self.config.image_token_id
        else:
            embeddings: Any = self.get_input_embeddings()
            if self.config.image_token_id >= embeddings.num_embeddings:
                raise ValueError(
                    f"image_token_id {self.config.image_token_id} lies outside the embedding table "
                    f"({embeddings.num_embeddings} rows), so placeholders cannot be found in inputs_embeds: pass "
                    "input_ids as well, or put the image features into inputs_embeds yourself."
                )
            placeholder = torch.full((), self.config.image_token_id, dtype=torch.long, device=inputs_embeds.device)
            mask = (inputs_embeds == embeddings(placeholder)).all(-1)
        num_images, per_image = image_features.shape[:2]
        is_matching = mask.sum() == num_images * per_image
        if torch.compiler.is_compiling():  # Transformers' check reads the sum, which would end the graph
            message = "Image features and image tokens do not match"
            torch._assert_async(is_matching, message)  # pyright: ignore[reportPrivateUsage]
        else:
            torch_compilable_check(
                is_matching,
                f"Image features and image tokens do not match, tokens: {mask.sum()}, features: "
                f"{num_images * per_image} ({num_images} images of {per_image} each)",
            )
        return mask.unsqueeze(-1).to(inputs_embeds.device)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        mqformer_input_ids: torch.Tensor | None = None,
        mqformer_attention_mask: torch.Tensor | None = None,
        mqformer_position_ids: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        kept_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> LyricsModelOutputWithPast:
        """Run the language model over text with images.

        Args:
            input_ids: int64 tensor of shape (B, L), with V + G placeholders (`config.image_token_id`) for each image.
            pixel_values: float tensor of shape (N, 3, H, W). Images are counted in the order of their placeholders,
                over the whole batch.
            attention_mask: tensor of shape (B, L), 1 for a token and 0 for padding, on either side.
            position_ids: int64 tensor of shape (B, L); counted over `attention_mask` by default.
            cache: `Cache` of keys and values, formerly called `past_key_values`.
            inputs_embeds: float tensor of shape (B, L, text width), instead of or beside `input_ids`; see
                `get_placeholder_mask`.
            region_features, region_attention_mask: inputs of `get_image_features`.
            mqformer_input_ids, mqformer_attention_mask, mqformer_position_ids: inputs of `get_image_features`.
            mm_encoder_outputs: dictionary `{"image": get_image_features(...)}`, to skip the encoders.
            kept_positions: int64 tensor of shape (K,), positions among the B * L whose states are returned; all by
                default. A head then computes these alone.
            kwargs: further arguments of the language model.

        Returns:
            The `last_hidden_state` of shape (B, L, text width), or (1, K, text width) of the kept positions, and
            Transformers' further fields.

        Raises:
            ValueError: placeholders and images do not match; the message names both counts.
        """
        if pixel_values is not None and mm_encoder_outputs:
            raise ValueError("Pass either pixel_values or mm_encoder_outputs, not both.")
        image = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None:
            image = self.get_image_features(
                pixel_values=pixel_values,
                region_features=region_features,
                region_attention_mask=region_attention_mask,
                mqformer_input_ids=mqformer_input_ids,
                mqformer_attention_mask=mqformer_attention_mask,
                mqformer_position_ids=mqformer_position_ids,
                return_dict=True,
            )
        inputs_embeds = self._embed(input_ids, inputs_embeds, image)
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        text_config = self.config.text_config
        if "per_layer_inputs" not in kwargs:
            kwargs |= embed_for_layers(self.language_model, text_config, input_ids, self.config.image_token_id)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=prepare_mask(text_config, inputs_embeds, attention_mask, cache),
            position_ids=position_ids,
            cache=cache,
            return_dict=True,
            **kwargs,
        )
        if not hasattr(outputs, "cache"):
            name = type(self.language_model).__name__
            raise ValueError(f"{name} keeps its past in a form of its own: take a language model with a `cache`.")
        states = outputs.last_hidden_state
        if kept_positions is not None:
            states = states.flatten(0, 1).index_select(0, kept_positions.to(states.device)).unsqueeze(0)  # (1, K, D)
        return LyricsModelOutputWithPast(
            last_hidden_state=states,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),  # a state-space model has none
            image_outputs=image,
            router_logits=getattr(outputs, "router_logits", None),
        )

    def _embed(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        image: BaseModelOutputWithPooling | None,
    ) -> torch.Tensor:
        """Return token embeddings (B, L, text width) with the image features at the placeholders."""
        embeds: Any = inputs_embeds
        if embeds is None:
            if input_ids is None:
                raise ValueError("Pass input_ids, inputs_embeds, or both.")
            # the placeholder's own row may not exist, and is never looked up
            text_ids = input_ids.masked_fill(input_ids == self.config.image_token_id, 0)
            embeds = self.get_input_embeddings()(text_ids)
        if image is not None:
            encoded: Any = image.pooler_output
            features = _stack_features(encoded)
            if features.shape[-1] != embeds.shape[-1]:
                raise ValueError(
                    f"The encoded images have width {features.shape[-1]}, but this language model has width "
                    f"{embeds.shape[-1]}: they were encoded by another model."
                )
            features = features.to(embeds.device, embeds.dtype)
            mask = self.get_placeholder_mask(input_ids, embeds, features)
            return embeds.masked_scatter(mask, features)
        if input_ids is not None and input_ids.shape[1] > 1:  # a decoding step has nothing to check
            self.get_placeholder_mask(input_ids, embeds, embeds.new_empty(0, 0, embeds.shape[-1]))
        if self.training and num_ranks() > 1:
            embeds = self._run_image_path(embeds)
        return embeds

    def _run_image_path(self, embeds: torch.Tensor) -> torch.Tensor:
        """Encode a blank image and return the embeddings unchanged.

        Where other ranks have images and this one has none, their vision parts may be sharded, and must run here as
        well.
        """
        config: Any = self.config
        side, regions = config.vision_config.image_size, None
        if config.mqformer_config.num_grounding_queries:
            regions = embeds.new_zeros(1, 1, config.mqformer_config.region_hidden_size)
        blank = embeds.new_zeros(1, getattr(config.vision_config, "num_channels", 3), side, side)
        features: Any = self.get_image_features(blank, regions, return_dict=True).pooler_output
        return embeds + 0.0 * features.sum().to(embeds.dtype)


class LyricsForConditionalGeneration(LyricsPreTrainedModel, LyricsGenerationMixin):
    """Lyrics with a language modeling head: it answers in text, and writes boxes as text.

    An image takes V + G placeholders in the prompt. The processor makes them, and all other inputs, from images and
    text. `generate` is Transformers' own; an image is encoded once, before the first token.

    Args:
        config: `LyricsConfig`.

    Examples:
        >>> from PIL import Image
        >>> from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsForConditionalGeneration, LyricsProcessor
        >>> model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
        >>> processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
        >>> question = {"type": "text", "text": "What color is the ring?"}
        >>> messages = [{"role": "user", "content": [{"type": "image", "image": Image.open(SCENE_PICTURE)}, question]}]
        >>> inputs = processor.apply_chat_template(
        ...     messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ... )
        >>> generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        >>> processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' purple'
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: LyricsConfig) -> None:
        super().__init__(config)
        self.model = LyricsModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        words = self.model.get_input_embeddings()
        name = next(name for name, module in self.model.language_model.named_modules() if module is words)
        # each family has its own name for the word embeddings
        self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{name}.weight"}
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the language modeling head."""
        return self.lm_head

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what the vision encoder makes of images, see `LyricsModel.get_vision_features`."""
        return self.model.get_vision_features(pixel_values)

    def get_image_features(self, pixel_values: torch.Tensor | None = None, **kwargs: Any) -> LyricsImageFeatures:
        """Encode images; the arguments are those of `LyricsModel.get_image_features`."""
        return self.model.get_image_features(pixel_values=pixel_values, **kwargs)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        mqformer_input_ids: torch.Tensor | None = None,
        mqformer_attention_mask: torch.Tensor | None = None,
        mqformer_position_ids: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> LyricsCausalLMOutputWithPast:
        """Compute the logits of text with images, and the loss where labels are given.

        Args:
            input_ids, ..., mm_encoder_outputs: inputs of `LyricsModel.forward`.
            labels: int64 tensor of shape (B, L), -100 where there is no loss; placeholders never count.
            logits_to_keep: number of last positions to compute logits for, 0 for all, or an int64 tensor of positions.
            kwargs: further arguments of the language model and of the loss, such as `output_router_logits`.

        Returns:
            The `logits` of shape (B, L, vocabulary), the scalar `loss`, and Transformers' further fields.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            region_features=region_features,
            region_attention_mask=region_attention_mask,
            mqformer_input_ids=mqformer_input_ids,
            mqformer_attention_mask=mqformer_attention_mask,
            mqformer_position_ids=mqformer_position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        states = outputs.last_hidden_state
        if getattr(self.config.text_config, "residual_in_fp32", False):  # Mamba's states are float32 in any model
            states = states.to(self.lm_head.weight.dtype)
        unscaled = self.lm_head(slice_logits_to_keep(states, logits_to_keep))
        logits: Any = scale_logits(unscaled, self.config.text_config)
        aux_loss = balance_experts(outputs.router_logits, self.config.text_config, attention_mask)
        loss: Any = None
        if labels is not None:
            labels = self._countable_labels(labels, attention_mask)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
            if aux_loss is not None:
                loss = loss + self.config.text_config.router_aux_loss_coef * aux_loss.to(loss.device)
        return LyricsCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            router_logits=outputs.router_logits,
            aux_loss=aux_loss,
        )

    def _countable_labels(self, labels: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Return labels without placeholders, and without labels that a padding position would predict.

        A token is predicted at the position before it. With left padding, that of the first token is padding, so that
        the loss would depend on the padding side.
        """
        labels = labels.masked_fill(labels == self.config.image_token_id, IGNORE_INDEX)
        if attention_mask is not None and attention_mask.shape == labels.shape:
            after_padding = nn.functional.pad(attention_mask[:, :-1] == 0, (1, 0))
            labels = labels.masked_fill(after_padding, IGNORE_INDEX)
        return labels

    @classmethod
    def from_parts(
        cls,
        vision_model: PreTrainedModel | str | Path,
        mqformer: LyricsMQFormerModel | PreTrainedConfig | None,
        language_model: PreTrainedModel | str | Path,
        **config_kwargs: Any,
    ) -> LyricsForConditionalGeneration:
        """Build a model from pretrained parts; their weights are used directly, without a copy.

        Args:
            vision_model: vision encoder, model that holds one as `vision_model` (such as `CLIPModel`), or folder or Hub
                id of one.
            mqformer: MQ-Former, configuration of a new one, or `None` for a new one of the paper's sizes.
            language_model: causal language model, or folder or Hub id of one.
            config_kwargs: further fields of `LyricsConfig`.

        Returns:
            The model in evaluation mode. The language projection is new, and so is a part that was given as a
            configuration.

        Raises:
            ValueError: the language model's head has a bias, which this model would lose.
        """
        vision, queries, config_kwargs = prepare_parts(vision_model, mqformer, config_kwargs)
        text: Any = language_model
        if isinstance(language_model, str | Path):
            text = AutoModelForCausalLM.from_pretrained(language_model, trust_remote_code=False)
        if getattr(text.get_output_embeddings(), "bias", None) is not None:
            raise ValueError(
                f"The head of this {text.config.model_type} has a bias, and that of a Lyrics model has none: choose "
                "another language model."
            )
        queries_config = queries.config if isinstance(queries, PreTrainedModel) else queries
        config_kwargs.setdefault("tie_word_embeddings", bool(getattr(text.config, "tie_word_embeddings", False)))
        config = LyricsConfig(
            vision_config=vision.config, mqformer_config=queries_config, text_config=text.config, **config_kwargs
        )
        with torch.device("meta"):
            model: Any = cls(config)
        if not isinstance(queries, PreTrainedModel):
            queries = LyricsMQFormerModel(config.mqformer_config).to(text.device, text.dtype)
        projection = nn.Linear(config.mqformer_config.hidden_size, config.text_config.hidden_size)
        nn.init.normal_(projection.weight, std=config.initializer_range)
        nn.init.zeros_(projection.bias)
        model.model.vision_model, model.model.mqformer = vision, queries
        model.model.language_projection = projection.to(text.device, text.dtype)
        model.model.language_model, model.lm_head = text.base_model, text.get_output_embeddings()
        model.generation_config = copy.deepcopy(text.generation_config)
        model.tie_weights()
        return model.eval()


__all__ = [
    "LyricsCausalLMOutputWithPast",
    "LyricsForConditionalGeneration",
    "LyricsImageFeatures",
    "LyricsModel",
    "LyricsModelOutputWithPast",
]
