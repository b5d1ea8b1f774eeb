"""Average normalized Levenshtein similarity (ANLS) of text read from an image, for DocVQA and ST-VQA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from lyrics.utils.optional_imports import import_optional

from .variants import check_variant

AnlsVariant = Literal["official", "lmms-eval", "m4c"]
_VARIANTS = frozenset(get_args(AnlsVariant))


def parse_anls(answer: str) -> str | None:
    """Return the answer lowercased with single spaces, as it is compared, or `None` where nothing is left."""
    return " ".join(answer.lower().split()) or None


def score_anls(
    answer: str, references: Sequence[str], *, threshold: float = 0.5, variant: AnlsVariant = "official"
) -> float:
    """Return the largest similarity of an answer to a reference, or 0 below the threshold.

    The similarity is 1 - edit distance / length of the longer text. Two empty texts have the similarity 1.

    Args:
        answer: str, answer of the model.
        references: sequence of str, accepted answers.
        threshold: float, lowest similarity that counts.
        variant: name of the code that is followed.
            "official": script of the Robust Reading competition: the distance is that of lowercased texts with single
            spaces, the length that of the texts as they are.
            "lmms-eval": the same.
            "m4c": distance and length of lowercased texts without outer white space.

    Raises:
        ImportError: rapidfuzz is not installed; the extra `evaluation` installs it.
        ValueError: there are no references, or there is no such variant.
    """
    check_variant(variant, _VARIANTS)
    if not references:
        raise ValueError("ANLS needs at least one reference answer.")
    similarity = max(_similarity(answer, reference, variant) for reference in references)
    return similarity if similarity >= threshold else 0.0


def _similarity(answer: str, reference: str, variant: AnlsVariant) -> float:
    """Return the normalized similarity of two texts, in [0, 1]."""
    distance = import_optional("rapidfuzz.distance.Levenshtein").distance
    if variant == "m4c":
        answer, reference = answer.lower().strip(), reference.lower().strip()
        length = max(len(answer), len(reference))
    else:
        length = max(len(answer.upper()), len(reference.upper()))
        answer, reference = " ".join(answer.lower().split()), " ".join(reference.lower().split())
    return max(0.0, 1 - distance(answer, reference) / length) if length else 1.0
