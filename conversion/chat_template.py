"""Chat template and stop tokens of a composed model: those of its language model, or Vicuna's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..processing_lyrics import LyricsProcessor
from ..processing_lyrics.chat_templates import IMAGE, VICUNA_TEMPLATE
from ..processing_lyrics.language_model_templates import ChatTemplate, adapt_template, end_of_turn, is_own_template

OWN, VICUNA = "own", "vicuna"


def choose_template(choice: str | os.PathLike[str] | None, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the chat template of a model that is composed.

    Args:
        choice: `"own"` for that of the language model, `"vicuna"`, or a Jinja file; `None` for the language model's own
            if it has one, and Vicuna's otherwise.
        tokenizer: tokenizer of the language model.

    Raises:
        ValueError: there is no such template, or it takes no pictures.
    """
    own: Any = tokenizer.chat_template
    if choice == VICUNA or (choice is None and not own):
        return VICUNA_TEMPLATE
    if choice not in (None, OWN):
        if not os.path.isfile(choice):
            raise ValueError(f"The chat template must be own, vicuna or a Jinja file, and there is no file {choice!s}.")
        own = Path(choice).read_text("utf-8")
    if not own:
        raise ValueError("The language model's tokenizer has no chat template: choose vicuna, or a Jinja file.")
    return adapt_template(own, tokenizer.special_tokens_map, IMAGE)


def describe_template(processor: LyricsProcessor) -> str:
    """Return in words which chat template a composed model has."""
    return "Vicuna's chat template" if _own_template(processor) is None else "the language model's own chat template"


def stop_token_ids(model: Any, processor: LyricsProcessor) -> list[int]:
    """Return the ids of all tokens that end an answer.

    They are those that the language model declares in its settings of generation and in its configuration, the
    tokenizer's, and the one that the chat template writes behind an answer.

    Args:
        model: causal language model.
        processor: processor of the composed model.
    """
    tokenizer = processor.tokenizer
    declared = [model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id]
    ids = [one for given in declared for one in (given if isinstance(given, list | tuple) else [given])]
    if (template := _own_template(processor)) is not None:
        specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        token = end_of_turn(template, tokenizer.special_tokens_map, specials)
        ids += [] if token is None else [tokenizer.convert_tokens_to_ids(token)]
    return [int(one) for one in dict.fromkeys(ids) if one is not None]


def _own_template(processor: LyricsProcessor) -> str | None:
    """Return the language model's own template of a processor, or `None` where it has Vicuna's."""
    template: Any = processor.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    return template if template is not None and is_own_template(template) else None
