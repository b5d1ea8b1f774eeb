"""Answers for `fuzz.py`: each goes through every parser and score of the metrics, in every variant."""

from __future__ import annotations

import math
import random
from typing import Any, get_args

from lyrics.evaluation.metrics import (
    anls,
    direct_answer,
    exact_match,
    llava_bench,
    mme,
    multiple_choice,
    pope,
    referring,
    vqa_accuracy,
    yes_no,
)
from lyrics.evaluation.metrics.captions import parse_caption

PIECES = [
    *"[](){}<>:;,.!?-_+=/\\\"'`@ \n\t0123456789eE|#",
    *("\0", "\x0b", "\x1f", "\x85", "\u2028", "\u202e", "\ufeff", "\ud800", "\U0010ffff", "\xa0", "\u3000"),
    *("日本", "e\u0301", "\U0001f600", "ﬁ", "ß", "İ", "ǆ", "٣", "²", "½", "\uff10", "ⅷ"),
    *("yes", "no", "Yes", "No.", "NO", "not", "y", "N", "other", "maybe", "the", "A", "an", "none", "Two", "ten"),
    *("dont", "don't", "'s", "couldntve", "yall'd've", "1,000", "1,,0", "3.", ".5", "U.S.A.", "left/right", "red-car"),
    *("The answer is B.", "The answer is ", "B. ", "b)", "(C", "E", "Z"),
    *("[0.1, 0.2, 0.3, 0.4]", "[0.9,0.8,0.1,0.2]", "(1, 2, 3, 4)", "[.1,.2,.3,.4]", "[1e9, 0, 0, 1]", "[-1, 0, 5, 9]"),
    *(
        "[nan, inf, 0, 1]",
        "star: [0.100, 0.200, 0.300, 0.400];",
        "8 6",
        "10, 1\n",
        "-1",
        "9" * 400,
        "0.",
        "1." + "0" * 30,
    ),
    *("." * 40, " " * 90, "word " * 60, "[" * 50, "1, " * 30),
]
CHOICES = ["red", "Blue.", "a dog", "b", "None of the above"]


def answer_of(draw: random.Random) -> str:
    """Pieces that a parser looks for, or any characters."""
    if draw.random() < 0.1:
        return "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0x110000)))) for _ in range(draw.randrange(30))
        )
    count = draw.randrange(8) if draw.random() < 0.98 else draw.randrange(500)
    return draw.choice(("", " ", "\n")).join(draw.choices(PIECES, k=count))


def check_metrics(draw: random.Random) -> None:
    """Every parser returns what it promises or `None`, and every score is in [0, 1]; no answer is an error."""
    answer = answer_of(draw)
    others = [answer_of(draw) for _ in range(3)]
    references = draw.choices([answer, *others], k=10)
    _check_texts(answer, references)
    _check_yes_no(answer, draw)
    _check_choice(answer, draw)
    _check_box(answer, draw)
    pair = llava_bench.parse_scores(answer, swapped=draw.random() < 0.5)
    assert pair is None or all(1 <= score <= 10 for score in pair), pair
    summary = llava_bench.summarize_llava_bench([pair, llava_bench.parse_scores("8 4")])
    assert summary["failed"] == (pair is None), summary
    _check_text(parse_caption(answer))


def _check_texts(answer: str, references: list[str]) -> None:
    """Scores of short answers; an answer that all annotators gave is right."""
    for variant in get_args(vqa_accuracy.VqaVariant):
        _check_text(vqa_accuracy.parse_vqa(answer, variant=variant))
        _check_score(vqa_accuracy.score_vqa(answer, references, variant=variant))
        _check_score(vqa_accuracy.score_any_match(answer, references, variant=variant))
        assert vqa_accuracy.score_vqa(answer, [answer] * 10, variant=variant) == 1
    for variant in get_args(exact_match.ExactMatchVariant):
        _check_text(exact_match.parse_exact_match(answer, variant=variant))
        _check_score(exact_match.score_exact_match(answer, references, variant=variant))
        assert exact_match.score_exact_match(answer, [answer], variant=variant) == 1
    for variant in get_args(anls.AnlsVariant):
        _check_score(anls.score_anls(answer, references, variant=variant))
        assert anls.score_anls(answer, [answer], variant=variant) == 1
    _check_text(anls.parse_anls(answer))
    for variant in get_args(direct_answer.DirectAnswerVariant):
        _check_text(direct_answer.parse_direct_answer(answer, variant=variant))
        _check_score(direct_answer.score_direct_answer(answer, references, variant=variant))


def _check_yes_no(answer: str, draw: random.Random) -> None:
    """Yes, no or neither."""
    label: Any = draw.choice(("yes", "no"))
    for variant in get_args(yes_no.YesNoVariant):
        said = yes_no.parse_yes_no(answer, variant=variant)
        assert said in ("yes", "no") or (said is None and variant != "official"), said
        _check_score(pope.score_pope(answer, label, variant=variant))
        summary = pope.summarize_pope([said, "yes"], [label, "no"], variant=variant)
        assert all(0 <= value <= 100 for value in summary.values()), summary
    for variant in get_args(mme.MmeVariant):
        assert mme.parse_mme(answer, variant=variant) in ("yes", "no", None)
        score = mme.score_mme(answer, label, variant=variant)
        points = mme.summarize_mme([mme.MmeResult("color", "a", score), mme.MmeResult("color", "a", 1.0)])
        assert points["color"] in (50, 200), points


def _check_choice(answer: str, draw: random.Random) -> None:
    """An option that exists, or none."""
    choices = CHOICES[: draw.randint(1, 5)]
    for variant in get_args(multiple_choice.ChoiceVariant):
        number = multiple_choice.parse_choice(answer, choices, variant=variant)
        assert number is None or 0 <= number < len(choices), number
        _check_score(multiple_choice.score_choice(answer, choices, 0, variant=variant))


def _check_box(answer: str, draw: random.Random) -> None:
    """Corners in order, and an overlap in [0, 1]."""
    for variant in get_args(referring.BoxVariant):
        for coordinates in get_args(referring.BoxCoordinates):
            box = referring.parse_box(answer, coordinates=coordinates, size=(640, 3), variant=variant)
            if box is None:
                continue
            assert len(box) == 4, box
            if variant == "official":
                assert all(map(math.isfinite, box)), box
                assert box[0] <= box[2], box
                assert box[1] <= box[3], box
            x, y = draw.random(), draw.random()
            _check_score(referring.box_iou(box, (x, y, x + draw.random(), y + draw.random())))
            _check_score(referring.score_box(box, box))


def _check_text(text: str | None) -> None:
    """A text that is not empty, or none."""
    assert text is None or text.strip(), repr(text)


def _check_score(score: float) -> None:
    """A number in [0, 1]."""
    assert isinstance(score, float), score
    assert 0 <= score <= 1, score
