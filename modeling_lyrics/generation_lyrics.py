"""Generation is Transformers' own; here stands what it must be told about encoded images, padding and settings."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.utils import GenerationMixin


class LyricsGenerationMixin(GenerationMixin):
    """`GenerationMixin`, with right padding refused and the caller's encoded images left alone."""

    config: Any

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Without a `generation_config.json`, take the language model's token ids and nothing else.

        Transformers reads generation settings out of `config.json` then, where the published checkpoint has the
        defaults of an old release, such as answers of 20 tokens.
        """
        super().adjust_generation_fn(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if self.generation_config._from_model_config:
            self.generation_config = GenerationConfig.from_model_config(self.config)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in Transformers, which continues a right-padded prompt after its padding; here that is an error."""
        mask = kwargs.get("attention_mask")
        if kwargs.get("is_first_iteration") and mask is not None and mask.dim() == 2 and (mask[:, -1] == 0).any():
            rows = (mask[:, -1] == 0).nonzero().flatten().tolist()
            raise ValueError(
                f"Rows {rows} of attention_mask end with padding, so generation would continue after it. Pad prompts "
                "on the left, as `processor(..., padding=True)` does."
            )
        return super().prepare_inputs_for_generation(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def _expand_inputs_for_generation(self, *args: Any, **kwargs: Any) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Transformers expands encoded images for beams in place; expand copies, so that a caller may keep theirs."""
        if (encoded := kwargs.get("mm_encoder_outputs")) is not None:
            kwargs["mm_encoder_outputs"] = {name: copy.copy(output) for name, output in encoded.items()}
        return super()._expand_inputs_for_generation(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
