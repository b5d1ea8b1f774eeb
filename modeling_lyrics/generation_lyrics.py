"""Adjustments of Transformers' generation: encoded images, padding, placeholders, and settings of checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.generation.utils import GenerationMixin

from .checkpoint_files import HUB_KWARGS, find_file, read_object

# They index the scores by the ids of the prompt.
_INDEX_BY_PROMPT = (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)


class _PlaceholderColumn(LogitsProcessor):
    """A processor of scores that is given a column for the placeholder, which has none in the vocabulary."""

    def __init__(self, processor: Callable[..., torch.Tensor], image_token_id: int) -> None:
        self.processor = processor
        self.image_token_id = image_token_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the processed scores (B, vocabulary)."""
        size = scores.shape[-1]
        added = max(self.image_token_id + 1 - size, 0)
        return self.processor(input_ids, torch.nn.functional.pad(scores, (0, added), value=-torch.inf))[:, :size]


class _ForbiddenPlaceholder(LogitsProcessor):
    """Processors of scores, of the vocabulary alone, after which the placeholder has the score of a forbidden token."""

    def __init__(self, processors: Callable[..., torch.Tensor], image_token_id: int, vocab_size: int) -> None:
        self.processors = processors
        self.image_token_id = image_token_id
        self.vocab_size = vocab_size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the processed scores (B, columns), where the columns hold the placeholder."""
        processed = self.processors(input_ids, scores[:, : self.vocab_size])
        added = scores.shape[-1] - processed.shape[-1]
        processed = torch.nn.functional.pad(processed, (0, added), value=-torch.inf)
        processed[:, self.image_token_id] = -torch.inf
        return processed


class LyricsGenerationMixin(GenerationMixin):
    """A `GenerationMixin` that refuses right padding and passes encoded images on where they are needed.

    Whatever looks up the ids of a prompt gets along with placeholders outside the vocabulary, or is refused by name.
    """

    config: Any

    def adjust_generation_fn(
        self,
        generation_config: Any,
        from_auto_class: Any,
        from_pipeline: Any,
        pretrained_model_name_or_path: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Load generation settings; without a `generation_config.json`, take only the language model's token ids.

        Transformers reads settings out of `config.json` in that case. The published checkpoint has defaults of an old
        release there, such as answers of 20 tokens.

        Args:
            generation_config: settings that the caller passed, or `None`.
            from_auto_class, from_pipeline: Transformers' arguments.
            pretrained_model_name_or_path: folder or Hub id.
            args, kwargs: Transformers' further arguments.

        Raises:
            ValueError: the file is damaged or holds wrong settings; Transformers would ignore it.
        """
        place, path = pretrained_model_name_or_path, None
        if generation_config is None and place is not None:
            hub_kwargs = {name: kwargs[name] for name in (*HUB_KWARGS, "subfolder") if kwargs.get(name) is not None}
            path = find_file(place, "generation_config.json", **hub_kwargs)
        if path is not None:
            read_object(path)
        parent: Any = super()
        try:
            parent.adjust_generation_fn(generation_config, from_auto_class, from_pipeline, place, *args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path or place} holds wrong settings of generation: {error}") from error
        if self.generation_config._from_model_config:  # pyright: ignore[reportPrivateUsage]
            if path is None:
                self.generation_config = GenerationConfig.from_model_config(self.config)
            else:
                # with this mark, Transformers would take the settings of `config.json` instead of those of the file
                self.generation_config._from_model_config = False  # pyright: ignore[reportPrivateUsage]

    def _has_no_embedding(self, model: Any) -> bool:
        """Return whether the placeholder's id lies outside the embedding table of a model."""
        return self.config.image_token_id >= model.get_input_embeddings().weight.shape[0]

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Return the processors of scores: those that look up prompt ids know the placeholder, and none chooses it."""
        processors = super()._get_logits_processor(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        token = self.config.image_token_id
        if token < self.config.text_config.vocab_size:  # a row of a padded vocabulary, which no answer may hold
            processors.append(SuppressTokensLogitsProcessor([token]))
        return LogitsProcessorList(
            _PlaceholderColumn(one, token) if isinstance(one, _INDEX_BY_PROMPT) else one for one in processors
        )

    def _get_candidate_generator(
        self,
        generation_config: Any,
        input_ids: torch.LongTensor,
        *args: Any,
        assistant_model: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Return the generator of candidates for assisted decoding, which never proposes a placeholder.

        Raises:
            ValueError: the assistant cannot embed the placeholders of this prompt, or is the model's own first layers.
        """
        token = self.config.image_token_id
        if generation_config.assistant_early_exit is not None:
            raise ValueError("assistant_early_exit is not supported: use prompt_lookup_num_tokens or assistant_model.")
        if assistant_model is not None and kwargs.get("assistant_tokenizer") is None and (input_ids == token).any():
            own = getattr(assistant_model.config, "image_token_id", None)
            if own != token and self._has_no_embedding(assistant_model):
                raise ValueError(
                    f"The assistant_model, a {type(assistant_model).__name__}, has no embedding for the placeholder's "
                    f"id {token}. Use a Lyrics model of the same tokenizer, or ask without an image."
                )
        parent: Any = super()
        generator = parent._get_candidate_generator(
            generation_config, input_ids, *args, assistant_model=assistant_model, **kwargs
        )
        if isinstance(generator, PromptLookupCandidateGenerator):
            size: Any = generator.vocab_size
            generator.logits_processor = _ForbiddenPlaceholder(  # pyright: ignore[reportAttributeAccessIssue]
                generator.logits_processor or LogitsProcessorList(), token, size
            )
            generator.vocab_size = max(size, token + 1)
            return generator
        propose = generator.get_candidates

        def without_placeholders(ids: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
            proposed, logits = propose(ids, *args, **kwargs)
            start = ids.shape[1]
            places = (proposed[0, start:] == token).nonzero().flatten().tolist()
            if not places:
                return proposed, logits
            return proposed[:, : start + places[0]], None if logits is None else logits[:, : places[0]]

        generator.get_candidates = without_placeholders
        return generator

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the inputs of the next step.

        Transformers reads the names of the arguments: without `inputs_embeds` it would refuse to start from embeddings.

        Args:
            input_ids: int64 tensor of shape (B, L), all tokens so far; (B, 0) for a prompt of embeddings alone.
            next_sequence_length: number of tokens that are not in the cache yet.
            cache: `Cache` of keys and values.
            attention_mask: tensor of shape (B, L), 1 for a token and 0 for padding.
            inputs_embeds: float tensor of shape (B, L, text width), the prompt. With images, `input_ids` of the same
                length say where their placeholders are.
            is_first_iteration: bool, whether this is the first step of a prompt.
            kwargs: inputs of `forward`.

        Raises:
            ValueError: a prompt is padded on the right, so that Transformers would continue after the padding.
        """
        mask = attention_mask
        if is_first_iteration and mask is not None and mask.dim() == 2 and (mask[:, -1] == 0).any():
            rows = (mask[:, -1] == 0).nonzero().flatten().tolist()
            raise ValueError(
                f"Rows {rows} of attention_mask end with padding, so generation would continue after it. Pad prompts "
                "on the left, as `processor(..., padding=True)` does."
            )
        parent: Any = super()
        inputs = parent.prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        embeds = inputs.get("inputs_embeds")
        if embeds is not None and inputs.get("input_ids") is None and input_ids.shape[1] >= embeds.shape[1]:
            inputs["input_ids"] = input_ids[:, -embeds.shape[1] :]  # they say where the placeholders are
        return self._with_images_of_new_tokens(inputs, input_ids, **kwargs)

    def _with_images_of_new_tokens(
        self, inputs: dict[str, Any], input_ids: torch.Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Return inputs with exactly the encoded images whose placeholders are not in the cache yet.

        Transformers passes all images of a prompt whose beginning is cached, and none to an assistant model.
        """
        new_ids, image = inputs.get("input_ids"), (kwargs.get("mm_encoder_outputs") or {}).get("image")
        if image is None or new_ids is None:
            return inputs
        if new_ids.shape[1] == 1 and inputs.get("mm_encoder_outputs") is None:  # decoding
            return inputs
        features = image.pooler_output
        per_row, new_per_row = (
            ((ids == self.config.image_token_id).sum(1) // len(features[0])).tolist() for ids in (input_ids, new_ids)
        )
        is_new = [
            index >= count - new for count, new in zip(per_row, new_per_row, strict=True) for index in range(count)
        ]
        if len(is_new) != len(features):
            return inputs  # the forward pass says that placeholders and images do not match
        inputs = {name: value for name, value in inputs.items() if name != "mm_encoder_outputs"}
        if not any(is_new):
            return inputs
        image = copy.copy(image)
        image.pooler_output = [feature for feature, new in zip(features, is_new, strict=True) if new]
        return inputs | {"mm_encoder_outputs": {"image": image}}

    def _expand_inputs_for_generation(self, *args: Any, **kwargs: Any) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Expand inputs for beams; encoded images are copied first, since Transformers expands them in place."""
        if (encoded := kwargs.get("mm_encoder_outputs")) is not None:
            kwargs["mm_encoder_outputs"] = {name: copy.copy(output) for name, output in encoded.items()}
        return super()._expand_inputs_for_generation(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
