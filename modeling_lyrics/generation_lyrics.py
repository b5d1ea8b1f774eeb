"""Adjustments of Transformers' generation: encoded images, padding, and settings of checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.utils import GenerationMixin

from .checkpoint_files import HUB_KWARGS, find_file, read_object


class LyricsGenerationMixin(GenerationMixin):
    """A `GenerationMixin` that refuses right padding and passes encoded images on where they are needed."""

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
            self.generation_config = GenerationConfig.from_model_config(self.config)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the inputs of the next step.

        Raises:
            ValueError: a prompt is padded on the right, so that Transformers would continue after the padding.
        """
        mask = kwargs.get("attention_mask")
        if kwargs.get("is_first_iteration") and mask is not None and mask.dim() == 2 and (mask[:, -1] == 0).any():
            rows = (mask[:, -1] == 0).nonzero().flatten().tolist()
            raise ValueError(
                f"Rows {rows} of attention_mask end with padding, so generation would continue after it. Pad prompts "
                "on the left, as `processor(..., padding=True)` does."
            )
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return self._with_images_of_new_tokens(inputs, *args, **kwargs)

    def _with_images_of_new_tokens(
        self, inputs: dict[str, Any], input_ids: torch.Tensor, *_: Any, **kwargs: Any
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
