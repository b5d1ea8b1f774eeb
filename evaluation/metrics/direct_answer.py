"""Direct answers of A-OKVQA: min(1, matches / 3) over the annotators' ten answers, none of which is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from .variants import check_variant

DirectAnswerVariant = Literal["official", "lowercase"]
_VARIANTS = frozenset(get_args(DirectAnswerVariant))


def parse_direct_answer(answer: str, *, variant: DirectAnswerVariant = "official") -> str | None:
    """Return the answer as it is compared, or `None` where nothing is left; `variant` as in `score_direct_answer`."""
    check_variant(variant, _VARIANTS)
    text = answer if variant == "official" else answer.strip().rstrip(".").lower()
    return text if text.strip() else None


def score_direct_answer(answer: str, references: Sequence[str], *, variant: DirectAnswerVariant = "official") -> float:
    """Return min(1, matches / 3).

    Args:
        answer: str, answer of the model.
        references: sequence of str, `direct_answers` of a row; lowercased in the data set. The official leaderboard
            leaves out rows with `difficult_direct_answer`.
        variant: name of the code that is followed.
            "official": allenai/aokvqa: texts are compared as they are.
            "lowercase": texts are compared without capitals, outer white space and periods at the end.
    """
    answer_text = parse_direct_answer(answer, variant=variant)
    matches = sum(parse_direct_answer(reference, variant=variant) == answer_text for reference in references)
    return min(1.0, matches / 3) if answer_text is not None else 0.0
