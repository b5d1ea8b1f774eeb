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
        ValueError: there is no such template, or it takes no images.
    """
    own: Any = tokenizer.chat_template
    if choice == VICUNA or (choice is None and not own):
        if tokenizer.eos_token is None:
            raise ValueError(
                "The language model's tokenizer has no eos_token, which ends an answer under Vicuna's chat template: "
                "set it in tokenizer_config.json, or give a chat template that ends answers otherwise."
            )
        return VICUNA_TEMPLATE
    if choice not in (None, OWN):
        own = _read_template(choice)
    if not own:
        raise ValueError("The language model's tokenizer has no chat template: choose vicuna, or a Jinja file.")
    return adapt_template(own, tokenizer.special_tokens_map, IMAGE)


def _read_template(path: str | os.PathLike[str]) -> str:
    """Return the text of a Jinja file.

    Raises:
        ValueError: there is no such file, it is empty, or it is no text.
    """
    if not os.path.isfile(path):
        raise ValueError(f"The chat template must be own, vicuna or a Jinja file, and there is no file {path!s}.")
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"The chat template {path!s} is no text in UTF-8: {error}.") from error
    if not text.strip():
        raise ValueError(f"The chat template {path!s} is empty.")
    return text


def describe_template(processor: LyricsProcessor, choice: str | os.PathLike[str] | None = None) -> str:
    """Return in words which chat template a composed model has.

    Args:
        processor: processor of the composed model.
        choice: argument of `choose_template`.
    """
    if _own_template(processor) is None:
        return "Vicuna's chat template"
    return "the language model's own chat template" if choice in (None, OWN) else f"the chat template {choice!s}"


def describe_stops(model: Any, processor: LyricsProcessor) -> str:
    """Return in words what ends an answer of a composed model."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        return "nothing but --max-new-tokens: the language model and its tokenizer declare no token for it"
    ids = ids if isinstance(ids, list) else [ids]
    return ", ".join(str(processor.tokenizer.convert_ids_to_tokens(one)) for one in ids)


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
