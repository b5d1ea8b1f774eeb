"""Exact match of a short answer, for GQA and OCR-VQA."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal, get_args

from .variants import check_variant

ExactMatchVariant = Literal["official", "lmms-eval", "vlmevalkit"]
_VARIANTS = frozenset(get_args(ExactMatchVariant))

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_exact_match(text: str, *, variant: ExactMatchVariant = "official") -> str:
    """Return a text as texts are compared; `variant` as in `score_exact_match`."""
    check_variant(variant, _VARIANTS)
    if variant == "lmms-eval":
        return text.lower().translate(_WITHOUT_PUNCTUATION)
    text = text.strip()
    return (text.rstrip(".") if variant == "official" else text).lower()


def parse_exact_match(answer: str, *, variant: ExactMatchVariant = "official") -> str | None:
    """Return the answer as it is compared, or `None` where nothing is left."""
    normalized = normalize_exact_match(answer, variant=variant)
    return normalized if normalized.strip() else None


def score_exact_match(answer: str, references: Sequence[str], *, variant: ExactMatchVariant = "official") -> float:
    """Return 1 where the answer equals one of the references, else 0.

    Args:
        answer: str, answer of the model.
        references: sequence of str, accepted answers; GQA and OCR-VQA have one.
        variant: name of the code that is followed.
            "official": GQA as LLaVA prepares it for the official code: without periods at the end, lowercased.
            "lmms-eval": its task `gqa`: without capitals and ASCII punctuation; white space counts.
            "vlmevalkit": GQA and OCR-VQA: without capitals and outer white space.
    """
    answer = normalize_exact_match(answer, variant=variant)
    return float(any(normalize_exact_match(reference, variant=variant) == answer for reference in references))
