"""Choice of one option: ScienceQA by its letter, A-OKVQA by its letter or its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal, get_args

from .variants import check_variant

ChoiceVariant = Literal["official", "lmms-eval", "aokvqa"]
_VARIANTS = frozenset(get_args(ChoiceVariant))

_SCIENCEQA_LETTERS = "ABCDE"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")  # the period stands for any character, as in the official code
_LETTER = re.compile(r"\(?([A-Za-z])(?:[.):,]|$)")


def parse_choice(answer: str, choices: Sequence[str], *, variant: ChoiceVariant = "official") -> int | None:
    """Return the number of the option that an answer names, from 0, or `None` where it names none.

    Args:
        answer: str, answer of the model.
        choices: sequence of str, texts of the options; their letters are A, B, C and so on.
        variant: name of the code that is followed.
            "official": LLaVA's for ScienceQA: the answer is a letter; or begins with a letter, a period and a space; or
            has exactly one "The answer is X.".
            "lmms-eval": its task `scienceqa`: the answer is a letter, without regard to capitals; or its second
            character is a period.
            "aokvqa": the answer is the text of an option, or else begins with its letter, without regard to capitals.
            The official code of A-OKVQA compares texts, into which letters have to be mapped before.
    """
    check_variant(variant, _VARIANTS)
    if variant == "aokvqa":
        return _parse_text_or_letter(answer, choices)
    letter = _scienceqa_letter(answer) if variant == "official" else _lmms_letter(answer)
    number = ascii_uppercase.find(letter) if letter else -1
    return number if 0 <= number < len(choices) else None


def _scienceqa_letter(answer: str) -> str | None:
    """Return the letter that LLaVA's code for ScienceQA reads."""
    if len(answer) == 1:
        return answer if answer in _SCIENCEQA_LETTERS else None
    if answer[1:3] == ". " and answer[0] in _SCIENCEQA_LETTERS:
        return answer[0]
    letters = _SENTENCE.findall(answer)
    return letters[0] if len(letters) == 1 and letters[0] in _SCIENCEQA_LETTERS else None


def _lmms_letter(answer: str) -> str | None:
    """Return the letter that lmms-eval's task `scienceqa` reads."""
    answer = answer.strip()
    if len(answer) == 1:
        return answer.upper()
    return answer[0] if answer[1:2] == "." and answer[0].isupper() else None


def _parse_text_or_letter(answer: str, choices: Sequence[str]) -> int | None:
    """Return the option whose text, or else whose letter, an answer is."""
    text = answer.strip().rstrip(".").lower()
    for number, choice in enumerate(choices):
        if text == choice.strip().rstrip(".").lower():
            return number
    match = _LETTER.match(answer.strip())
    number = ascii_uppercase.find(match[1].upper()) if match else -1
    return number if 0 <= number < len(choices) else None


def score_choice(answer: str, choices: Sequence[str], correct: int, *, variant: ChoiceVariant = "official") -> float:
    """Return 1 where the answer names the correct option, else 0.

    Args:
        answer: str, answer of the model.
        choices: sequence of str, texts of the options.
        correct: int, number of the correct option, from 0.
        variant: name of the code that is followed, as in `parse_choice`.
    """
    return float(parse_choice(answer, choices, variant=variant) == correct)
