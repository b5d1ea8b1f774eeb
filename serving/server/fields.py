"""Reading of single fields of a request; each error names its field."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import RequestError, wrong_value

_QUOTED = reprlib.Repr()
_QUOTED.maxstring = _QUOTED.maxother = _QUOTED.maxlong = 100
_QUOTED.maxlevel = 3


def read_number(body: Mapping[str, Any], name: str, low: float, high: float, whole: bool = False) -> Any:
    """Return a number within bounds, or `None` where the field is absent."""
    value = body.get(name)
    if value is None:
        return None
    kinds = int if whole else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:  # also refuses NaN
        noun = "a whole number" if whole else "a number"
        bounds = f"from {low} on" if high == math.inf else f"from {low} to {high}"
        raise wrong_value(name, f"`{name}` must be {noun} {bounds}, got {shorten(value)}.")
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a truth value, `False` where the field is absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_value(name, f"`{name}` must be true or false, got {shorten(value)}.")
    return bool(value)


def read_strings(body: Mapping[str, Any], name: str, most: int, longest: int) -> list[str]:
    """Return a list of strings that are not empty; one string is a list of one, and an absent field of none."""
    value = body.get(name)
    strings = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(one, str) and one for one in strings):
        raise wrong_value(name, f"`{name}` must be a list of strings that are not empty, got {shorten(value)}.")
    if len(strings) > most or any(len(one) > longest for one in strings):
        raise wrong_value(name, f"`{name}` may hold {most} strings of at most {longest} characters.")
    return strings


def check_model(body: Mapping[str, Any], model_name: str) -> None:
    """Raise a `RequestError` (404) where another model than the served one is asked for."""
    asked = body.get("model")
    if asked is not None and asked != model_name:
        message = f"There is no model {shorten(asked)}; the model of this server is {model_name!r}."
        raise RequestError(404, message, code="model_not_found", param="model")


def check_names(body: Mapping[str, Any], known: Sequence[str], neutral: Mapping[str, Sequence[Any]]) -> None:
    """Raise a `RequestError` that names a field which is unknown, or which would change the answer and cannot.

    Args:
        body: request.
        known: names of the fields that are read, or change nothing.
        neutral: names of fields that are not supported, with the values at which they change nothing.
    """
    for name, value in body.items():
        if name in known or value is None:
            continue
        if name not in neutral:
            raise RequestError(400, f"There is no field {shorten(name)}.", code="unknown_parameter", param=name[:100])
        if not any(type(value) is type(one) and value == one for one in neutral[name]):
            message = f"`{name}` is not supported by this server, got {shorten(value)}."
            raise RequestError(400, message, code="unsupported_parameter", param=name)


def shorten(value: Any) -> str:
    """Return a value as a message quotes it; of a long one, only the ends are looked at."""
    return _QUOTED.repr(value)
