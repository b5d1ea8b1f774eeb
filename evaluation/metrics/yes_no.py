"""Reading of a yes or no from an answer."""

from __future__ import annotations

from typing import Literal, get_args

from .variants import check_variant
from .vqa_accuracy import remove_punctuation

YesNo = Literal["yes", "no"]
YesNoVariant = Literal["official", "lmms-eval", "vlmevalkit"]
_VARIANTS = frozenset(get_args(YesNoVariant))


def parse_yes_no(answer: str, *, variant: YesNoVariant = "official") -> YesNo | None:
    """Return what an answer says, or `None` where it says neither.

    Args:
        answer: str, answer of the model.
        variant: name of the code that is followed.
            "official": POPE. "no" if one of the words up to the first period is "No", "no" or "not"; all other answers,
            also empty ones, are "yes", so that `None` is never returned. Count unclear answers with "vlmevalkit".
            "lmms-eval": its task `pope`: the whole answer has to be yes or no, without regard to capitals.
            "vlmevalkit": the one of the words yes and no that occurs, without regard to capitals and punctuation;
            `None` where both or none occur.
    """
    check_variant(variant, _VARIANTS)
    if variant == "official":
        words = answer.split(".", 1)[0].replace(",", "").split(" ")
        return "no" if any(word in ("No", "no", "not") for word in words) else "yes"
    if variant == "lmms-eval":
        word = answer.lower().strip()
        return word if word in ("yes", "no") else None
    words = set(remove_punctuation(answer.lower(), variant="vlmevalkit").split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"
