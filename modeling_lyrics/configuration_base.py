"""What every configuration of this package does with keys and values that are wrong.

Transformers keeps keys that a configuration does not know, without a word, and its errors name neither the file nor the
sub-model. `@strict` does not check a type that is a string, as all are under `from __future__ import annotations`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What Transformers, its trainers and its remote code write into any configuration, or take from it.
_OF_TRANSFORMERS = frozenset(GenerationConfig._get_default_generation_params()).union(
    ("attn_implementation", "experts_implementation", "output_attentions", "use_cache", "is_decoder"),
    ("auto_map", "model_type", "name_or_path", "torch_dtype", "transformers_weights", "quantization_config"),
    ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "tokenizer_class", "tie_word_embeddings"),
    ("num_labels", "finetuning_task", "per_layer_config", "tie_last_hidden_states"),
)


class CheckedConfig(PreTrainedConfig):
    """A configuration that warns of unknown keys, once each, and whose errors say which file and key they are about."""

    def __init_subclass__(cls, *args: Any, **kwargs: Any) -> None:
        cls.__annotations__ = inspect.get_annotations(cls, eval_str=True)
        super().__init_subclass__(*args, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        known = [field.name for field in dataclasses.fields(self)]
        for key in kwargs:
            if key not in _OF_TRANSFORMERS and not key.startswith("_"):
                near = get_close_matches(key, known, n=1)
                advice = f"did you mean {near[0]!r}?" if near else "it has no effect."
                logger.warning_once(f"{type(self).__name__} does not know the key {key!r}: {advice}")
        for key, spec in self.sub_configs_defaults.items():
            if isinstance(getattr(self, key), dict):
                try:
                    setattr(self, key, spec.create_subconfig(key, getattr(self, key))[0])
                except Exception as error:
                    raise ValueError(f"{key}: {_reason(error)}") from error
        super().__post_init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """As in Transformers, but no file tells where a sub-model was loaded from, either."""
        return _without_places(super().to_diff_dict())

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in Transformers; a file that holds anything but an object is an error that names it."""
        try:
            config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{pretrained_model_name_or_path}: config.json holds no object: {error}") from error
        if not isinstance(config_dict, dict):
            kind = type(config_dict).__name__
            raise ValueError(f"{pretrained_model_name_or_path}: config.json holds no object, but a {kind}.")
        return config_dict, unused_kwargs

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers.

        Raises:
            ValueError: naming place, class and key, when a value is wrong.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ValueError as error:
            place = os.fspath(pretrained_model_name_or_path)
            raise error if place in str(error) else ValueError(f"{place}: {error}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in Transformers.

        Raises:
            ValueError: naming class and key, and the place where the auto classes tell it, when a value is wrong.
        """
        place = kwargs.get("name_or_path")
        try:
            return super().from_dict(config_dict, **kwargs)
        except Exception as error:
            where = f"{place}: " if place else ""
            raise ValueError(f"{where}wrong {cls.__name__}: {_reason(error)}") from error


def naming_what_is_missing(translate: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorator of a translation of a foreign `config.json`: what that lacks, or has wrong, is a `ValueError`."""

    @functools.wraps(translate)
    def wrapper(foreign: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return translate(foreign, *args, **kwargs)
        except (AttributeError, LookupError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is wrong: {_reason(error)}"
            raise ValueError(f"A config.json of type {foreign.get('model_type')!r} {what}.") from error

    return wrapper


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | StrictDataclassError) else f"{type(error).__name__}: {error}"


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the paths that sub-models were loaded from, on every level."""
    return {
        name: _without_places(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name != "_name_or_path"
    }
