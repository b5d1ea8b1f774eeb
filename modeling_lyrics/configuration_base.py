"""Base class of all configurations: unknown keys give a warning, wrong values an error that names the file and key.

Transformers keeps unknown keys silently, and its errors name neither the file nor the sub-model. `@strict` does not
check annotations that are strings, as all are under `from __future__ import annotations`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Keys that Transformers, its trainers and its remote code write into any configuration, or read from it.
_OF_TRANSFORMERS = frozenset(
    GenerationConfig._get_default_generation_params()  # pyright: ignore[reportPrivateUsage]
).union(
    ("attn_implementation", "experts_implementation", "output_attentions", "use_cache", "is_decoder"),
    ("auto_map", "model_type", "name_or_path", "torch_dtype", "transformers_weights", "quantization_config"),
    ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "tokenizer_class", "tie_word_embeddings"),
    ("num_labels", "finetuning_task", "per_layer_config", "tie_last_hidden_states"),
)


class CheckedConfig(PreTrainedConfig):
    """A configuration that warns once for each unknown key, and whose errors name file and key."""

    def __init_subclass__(cls, *args: Any, **kwargs: Any) -> None:
        """Evaluate the annotations, so that `@strict` checks them."""
        cls.__annotations__ = inspect.get_annotations(cls, eval_str=True)
        super().__init_subclass__(*args, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        """Warn of unknown keys, and build the configurations of sub-models."""
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
                    raise ValueError(f"{key}: {_describe(error)}") from error
        super().__post_init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the settings that are saved, without the paths that sub-models were loaded from."""
        return _without_paths(super().to_diff_dict())

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the content of a `config.json` and the unused arguments.

        Raises:
            ValueError: the file holds anything but an object.
        """
        config_dict: Any  # a file may hold any JSON
        try:
            config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{pretrained_model_name_or_path}: config.json holds no object: {error}") from error
        if not isinstance(config_dict, dict):
            kind = type(config_dict).__name__
            raise ValueError(f"{pretrained_model_name_or_path}: config.json holds no object, but a {kind}.")
        return config_dict, unused_kwargs

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load a configuration from a folder or from the Hub, as in Transformers.

        Raises:
            ValueError: a value is wrong; the message names the checkpoint, the class and the key.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ValueError as error:
            place = os.fspath(pretrained_model_name_or_path)
            if place in str(error):
                raise
            raise ValueError(f"{place}: {error}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from a dictionary, as in Transformers.

        Raises:
            ValueError: a value is wrong; the message names class and key, and the checkpoint where it is known.
        """
        place = kwargs.get("name_or_path")
        try:
            return super().from_dict(config_dict, **kwargs)
        except Exception as error:
            where = f"{place}: " if place else ""
            raise ValueError(f"{where}wrong {cls.__name__}: {_describe(error)}") from error


def check_model_type(config: dict[str, Any], place: str | os.PathLike[str], allowed: tuple[str, ...]) -> None:
    """Check that a checkpoint is of a kind: Transformers would build a model of default sizes, with random weights.

    Args:
        config: content of its `config.json`.
        place: folder or Hub id.
        allowed: tuple of model types; no type at all is allowed too.

    Raises:
        ValueError: it is of another kind.
    """
    kind = config.get("model_type")
    if kind is None or kind in allowed:
        return
    advice = "; `lyrics compose` gives it a language model" if kind == "lyrics_pretraining" else ""
    raise ValueError(f"{os.fspath(place)} is a {kind}, and this needs a {' or '.join(allowed)}{advice}.")


# What a number of a configuration may be: a description, and a test that NaN fails.
POSITIVE = ("positive", lambda value: value > 0)
NOT_NEGATIVE = ("0 or more", lambda value: value >= 0)
SHARE = ("in [0, 1]", lambda value: 0 <= value <= 1)
FROM_ONE = ("1 or more", lambda value: 1 <= value < math.inf)
BELOW_ONE = ("in [0, 1)", lambda value: 0 <= value < 1)
RATE = ("in [0, 1), as a rate of dropout or smoothing is", lambda value: 0 <= value < 1)
FINITE = ("finite", math.isfinite)


def check_numbers(config: Any, allowed: tuple[str, Callable[[Any], bool]], *names: str) -> None:
    """Check numbers of a configuration, or lists of numbers; names that it lacks, and `None`, are skipped.

    Args:
        config: configuration.
        allowed: description and test of what is allowed, such as `POSITIVE`.
        names: names of the settings.

    Raises:
        ValueError: a number is not allowed; the message names the class, the setting and its value.
    """
    expected, test = allowed
    for name in names:
        value = getattr(config, name, None)
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, int | float) and not test(one) for one in values):
            raise ValueError(f"{type(config).__name__}: {name} must be {expected}, got {value!r}.")


def name_missing_keys(translate: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorate a translation of a foreign `config.json`: missing or malformed keys raise a `ValueError`."""

    @functools.wraps(translate)
    def wrapper(foreign: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return translate(foreign, *args, **kwargs)
        except (AttributeError, LookupError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is wrong: {_describe(error)}"
            raise ValueError(f"A config.json of type {foreign.get('model_type')!r} {what}.") from error

    return wrapper


def _describe(error: Exception) -> str:
    """Return the message of an error, with its type where the message alone would not explain it."""
    return str(error) if isinstance(error, ValueError | StrictDataclassError) else f"{type(error).__name__}: {error}"


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the paths that sub-models were loaded from, on every level."""
    return {
        name: _without_paths(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name != "_name_or_path"
    }
