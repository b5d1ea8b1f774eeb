"""LLaVA-Bench: a judge rates a reference answer and the model's answer, each from 1 to 10.

This file makes the judge's prompt and reads its review. The judge itself is a callable of the caller.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,6})?")

RULE = (
    "Rate the two answers above, which two AI assistants gave to a question about an image. The context describes what "
    "the image shows. Judge how helpful, relevant, accurate and detailed each answer is, and give each assistant a "
    "score from 1 to 10, where a higher score is better.\n"
    "The first line of your review has to hold only two numbers separated by a space: the score of Assistant 1 and the "
    "score of Assistant 2. Explain the scores in the lines below. The order of the answers must not matter."
)
"""Instruction to the judge, in our words. The benchmark's own is in `rule.json` of LLaVA; say which one was used."""


class JudgeScores(NamedTuple):
    """Scores of one question.

    Attributes:
        reference: float from 1 to 10, score of the reference answer.
        candidate: float from 1 to 10, score of the model's answer.
    """

    reference: float
    candidate: float


def judge_prompt(
    context: str, question: str, reference: str, candidate: str, *, rule: str = RULE, swapped: bool = False
) -> str:
    """Return the text for the judge, in the blocks of LLaVA's script.

    Args:
        context: str, description of the image; captions are joined by line breaks.
        question: str, question about the image.
        reference: str, answer of the reference model, which Assistant 1 gives.
        candidate: str, answer of the model, which Assistant 2 gives.
        rule: str, instruction to the judge; that of the question's category in LLaVA's `rule.json`.
        swapped: bool, puts the model's answer first. Judges prefer one place; ask in both orders to see how much.
    """
    first, second = (candidate, reference) if swapped else (reference, candidate)
    return (
        f"[Context]\n{context}\n\n[Question]\n{question}\n\n"
        f"[Assistant 1]\n{first}\n\n[End of Assistant 1]\n\n"
        f"[Assistant 2]\n{second}\n\n[End of Assistant 2]\n\n"
        f"[System]\n{rule}\n\n"
    )


def parse_scores(review: str, *, swapped: bool = False) -> JudgeScores | None:
    """Return the two scores in the first line of a review, or `None` where it does not hold them.

    Args:
        review: str, text of the judge.
        swapped: bool, order of the prompt, as in `judge_prompt`.

    Returns:
        Scores of the reference and of the candidate; `None` where the first line does not hold exactly two numbers, or
        one is not from 1 to 10.
    """
    lines = review.strip().splitlines()
    numbers = [float(number) for number in _NUMBER.findall(lines[0])] if lines else []
    if len(numbers) != 2 or not all(1 <= number <= 10 for number in numbers):
        return None
    first, second = numbers
    return JudgeScores(second, first) if swapped else JudgeScores(first, second)


def summarize_llava_bench(
    scores: Sequence[JudgeScores | None], categories: Sequence[str] | None = None
) -> dict[str, float]:
    """Return the model's mean score in percent of the reference's, over all questions and per category.

    Args:
        scores: sequence of N `JudgeScores`, or `None` for a review that could not be read. These are excluded; LLaVA's
            script averages -1 in their place.
        categories: sequence of N str, "conv", "detail" or "complex"; `None` omits them.

    Returns:
        Percent under "all" and under each category, NaN without scores, and the number of excluded reviews under
        "failed".

    Raises:
        ValueError: there are more or fewer categories than scores.
    """
    if categories is not None and len(categories) != len(scores):
        raise ValueError(
            f"Each score needs a category, but there are {len(scores)} scores and {len(categories)} categories."
        )
    groups: defaultdict[str, list[JudgeScores]] = defaultdict(list)
    groups["all"] = [pair for pair in scores if pair is not None]
    for category, pair in zip(categories or (), scores, strict=False):
        groups[category] += [pair] if pair is not None else []
    summary = {name: _relative_score(pairs) for name, pairs in groups.items()}
    return summary | {"failed": float(sum(pair is None for pair in scores))}


def _relative_score(pairs: Sequence[JudgeScores]) -> float:
    """Return the mean of the candidate's scores in percent of the mean of the reference's."""
    if not pairs:
        return float("nan")
    return 100 * fmean(pair.candidate for pair in pairs) / fmean(pair.reference for pair in pairs)
