"""VQA accuracy: an answer is right as far as people agree with it.

Each of the annotators is left out in turn. The answer's accuracy against the others is min(1, matches / 3), and the
score is the mean over the annotators: with ten of them 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more equal answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, get_args

from .summary import summarize_scores
from .variants import check_variant

VqaVariant = Literal["official", "lmms-eval", "evalai", "vlmevalkit"]
_VARIANTS = frozenset(get_args(VqaVariant))

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_AROUND_COMMA = re.compile(r"\d,\d")
_DIGITS_AROUND_COMMAS = re.compile(r"\d,+\d")
# The official pattern is `(?!<=\d)(\.)(?!\d)`. Its first group, a misspelt look-behind, excludes nothing.
_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_BETWEEN_WORDS = re.compile(r"(?<!\d)\.(?!\d)")
_MAX_PERIODS = 32  # the official code passes `re.UNICODE`, which is 32, as the count of `sub`
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {
    "none": "0",
    **{word: str(number) for number, word in enumerate(_NUMBER_WORDS)},
}
_ARTICLES = {"a", "an", "the"}


def _drop_each_apostrophe(forms: Iterable[str]) -> dict[str, str]:
    """Map every spelling that lacks one apostrophe of a form to that form."""
    return {
        form[:place] + form[place + 1 :]: form
        for form in forms
        for place, character in enumerate(form)
        if character == "'"
    }


# The official table has these, and forms with capitals such as "I'm", which no lowercased word equals.
_FORMS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd",
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't",
    "needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll",
    "somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd",
    "there'd've there're there's they'd they'd've they'll they're they've we'd've we've wasn't weren't what'll",
    "what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's",
    "won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've 'ow's'at 'twas",
)
_CONTRACTIONS = _drop_each_apostrophe(" ".join(_FORMS).split()) | {"somebody'd": "somebodyd"}


def normalize_answer(text: str, *, variant: VqaVariant = "official") -> str:
    """Return an answer as answers are compared: punctuation, articles, numbers and contractions normalized.

    Args:
        text: str, answer of a model or of an annotator.
        variant: name of the code that is followed, as in `score_vqa`.
    """
    check_variant(variant, _VARIANTS)
    text = text.replace("\n", " ").replace("\t", " ").strip()
    if variant == "evalai":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _normalize_words(remove_punctuation(text, variant=variant))


def remove_punctuation(text: str, *, variant: VqaVariant) -> str:
    """Remove or blank the punctuation of an answer, and its periods."""
    commas = _DIGITS_AROUND_COMMA if variant in ("official", "vlmevalkit") else _DIGITS_AROUND_COMMAS
    removes_all = commas.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        if mark in text:
            removes = removes_all or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if removes else " ")
    period = _PERIOD_BETWEEN_WORDS if variant == "vlmevalkit" else _PERIOD
    return period.sub("", result, count=_MAX_PERIODS)


def _normalize_words(text: str) -> str:
    """Return lowercased words without articles, with digits for number words, and with apostrophes in contractions."""
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def parse_vqa(answer: str, *, variant: VqaVariant = "official") -> str | None:
    """Return the normalized answer, or `None` where no word is left."""
    return normalize_answer(answer, variant=variant) or None


def score_vqa(answer: str, references: Sequence[str], *, variant: VqaVariant = "official") -> float:
    """Return the VQA accuracy of an answer.

    Args:
        answer: str, answer of the model.
        references: sequence of str, one answer per annotator; ten in VQAv2, OKVQA, TextVQA and VizWiz. Annotators are
            left out by position, so that equal answers count.
        variant: name of the code that is followed.
            "official": GT-Vision-Lab/VQA. Answers are normalized only if the annotators disagree; where all agree,
            capitals and punctuation count. Its misspelt pattern for periods and its limit of 32 of them are kept.
            "lmms-eval": its task `vqav2`, which always normalizes.
            "evalai": `EvalAIAnswerProcessor` of M4C, LLaVA and lmms-eval's tasks `textvqa`, `ok_vqa` and `vizwiz_vqa`:
            lowercases first, removes commas and question marks, and splits off "'s".
            "vlmevalkit": always normalizes, and keeps a period behind a digit.

    Raises:
        ValueError: there are fewer than two references, or there is no such variant.
    """
    check_variant(variant, _VARIANTS)
    if len(references) < 2:
        raise ValueError(f"VQA accuracy leaves one annotator out and needs at least 2 answers, not {len(references)}.")
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    references = [reference.replace("\n", " ").replace("\t", " ").strip() for reference in references]
    if variant != "official" or len(set(references)) > 1:
        answer = normalize_answer(answer, variant=variant)
        references = [normalize_answer(reference, variant=variant) for reference in references]
    matches = [reference == answer for reference in references]
    total = sum(matches)
    return fmean(min(1.0, (total - match) / 3) for match in matches)


def score_any_match(answer: str, references: Sequence[str], *, variant: VqaVariant = "evalai") -> float:
    """Return 1 where the normalized answer equals any normalized reference, else 0; the accuracy of ST-VQA in M4C."""
    answer = normalize_answer(answer, variant=variant)
    return float(any(normalize_answer(reference, variant=variant) == answer for reference in references))


def summarize_vqa(
    scores: Sequence[float],
    *,
    question_types: Sequence[str] | None = None,
    answer_types: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return the mean accuracy in percent, over all samples, per question type and per answer type.

    Args:
        scores: sequence of N floats in [0, 1], from `score_vqa`.
        question_types: sequence of N str, such as "what color"; `None` omits them.
        answer_types: sequence of N str, "yes/no", "number" or "other"; `None` omits them.

    Returns:
        Percent under "accuracy", "accuracy, question type what color" and "accuracy, answer type number". The official
        code rounds to two decimals.
    """
    result = summarize_scores(scores)
    for kind, groups in (("question type", question_types), ("answer type", answer_types)):
        if groups is not None:
            by_group = summarize_scores(scores, groups=groups)
            result |= {name.replace(", ", f", {kind} ", 1): value for name, value in by_group.items()}
    return result
