"""Metrics of short answers: VQA accuracy, exact match, ANLS, direct answers, multiple choice."""

import math

import pytest

from lyrics.evaluation.metrics.anls import parse_anls, score_anls
from lyrics.evaluation.metrics.direct_answer import parse_direct_answer, score_direct_answer
from lyrics.evaluation.metrics.exact_match import parse_exact_match, score_exact_match
from lyrics.evaluation.metrics.mme import parse_mme
from lyrics.evaluation.metrics.multiple_choice import parse_choice, score_choice
from lyrics.evaluation.metrics.pope import summarize_pope
from lyrics.evaluation.metrics.referring import parse_box
from lyrics.evaluation.metrics.summary import summarize_scores
from lyrics.evaluation.metrics.vqa_accuracy import (
    normalize_answer,
    parse_vqa,
    score_any_match,
    score_vqa,
    summarize_vqa,
)
from lyrics.evaluation.metrics.yes_no import parse_yes_no

NORMALIZED = [  # text, EvalAIAnswerProcessor, official
    ("The Cat.", "cat", "cat"),
    ("two dogs", "2 dogs", "2 dogs"),
    ("dont know", "don't know", "don't know"),
    ("1,000", "1000", "1000"),
    ("a  red-car", "red car", "red car"),
    ("St. John's", "st john 's", "st john's"),
    ("What's up?", "what 's up", "what's up"),
    ("3.5", "3.5", "3.5"),
    ("10:30 am", "10:30 am", "10:30 am"),
    ("None", "0", "0"),
    ("U.S.A.", "usa", "usa"),
    ("left/right", "left right", "left right"),
    ("$5", "$5", "$5"),
    ("isnt it", "isn't it", "isn't it"),
]


@pytest.mark.parametrize(("text", "evalai", "official"), NORMALIZED)
def test_answers_are_normalized_as_the_field_does(text, evalai, official):
    assert normalize_answer(text, variant="evalai") == evalai
    assert normalize_answer(text) == official


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)])
@pytest.mark.parametrize("variant", ["official", "lmms-eval", "evalai", "vlmevalkit"])
def test_vqa_accuracy_of_a_number_of_matches(matches, expected, variant):
    references = ["dog"] * matches + ["cat"] * (9 - matches) + ["horse"]
    assert score_vqa("A dog.", references, variant=variant) == pytest.approx(expected)


def test_official_code_does_not_normalize_where_all_annotators_agree():
    assert score_vqa("Yes", ["yes"] * 10) == 0
    assert score_vqa(" yes\n", ["yes"] * 10) == 1
    assert score_vqa("Yes", ["yes"] * 9 + ["Yes."]) == 1
    assert score_vqa("Yes", ["yes"] * 10, variant="lmms-eval") == 1
    assert score_vqa("Yes", ["yes"] * 10, variant="vlmevalkit") == 1


def test_period_behind_a_digit_stays_in_vlmevalkit_alone():
    assert normalize_answer("3.") == "3"
    assert normalize_answer("3.", variant="vlmevalkit") == "3."


def test_official_code_removes_32_periods():
    assert normalize_answer("a." + "." * 40) == "a" + "." * 9


def test_commas_between_digits_remove_all_punctuation():
    assert normalize_answer("1,000-x/y") == "1000xy"
    assert normalize_answer("1,,0-x") == "1 0 x"
    assert normalize_answer("1,,0-x", variant="lmms-eval") == "10x"


def test_vqa_accuracy_needs_two_annotators():
    with pytest.raises(ValueError, match="at least 2 answers, not 1"):
        score_vqa("dog", ["dog"])


def test_answer_without_a_word_is_unparseable_but_scored():
    assert parse_vqa("The") is None
    assert parse_vqa("The dog") == "dog"
    assert score_vqa("the", ["a", "an", "the", "a", "dog", "dog", "dog", "dog", "dog", "dog"]) == 1


def test_any_match():
    assert score_any_match("The Cat", ["dog", "cat."]) == 1
    assert score_any_match("cow", ["dog", "cat."]) == 0


def test_vqa_summary_by_types():
    summary = summarize_vqa(
        [1, 0.3, 0], question_types=["what", "is", "what"], answer_types=["other", "yes/no", "other"]
    )
    assert summary == pytest.approx(
        {
            "accuracy": 130 / 3,
            "accuracy, question type is": 30,
            "accuracy, question type what": 50,
            "accuracy, answer type other": 50,
            "accuracy, answer type yes/no": 30,
        }
    )


def test_summary_of_nothing_and_of_wrong_groups():
    assert math.isnan(summarize_scores([])["accuracy"])
    with pytest.raises(ValueError, match="2 scores and 1 groups"):
        summarize_scores([1, 0], groups=["a"])


@pytest.mark.parametrize(
    ("answer", "official", "lmms", "vlmevalkit"),
    [("Dog.", 1, 1, 0), (" dog ", 1, 0, 1), ("d-og", 0, 1, 0), ("dog", 1, 1, 1), ("dogs", 0, 0, 0), ("DOG..", 1, 1, 0)],
)
def test_exact_match(answer, official, lmms, vlmevalkit):
    assert score_exact_match(answer, ["dog"]) == official
    assert score_exact_match(answer, ["dog"], variant="lmms-eval") == lmms
    assert score_exact_match(answer, ["dog"], variant="vlmevalkit") == vlmevalkit


def test_exact_match_of_nothing_is_unparseable():
    assert parse_exact_match(" . ") is None
    assert parse_exact_match("Dog.") == "dog"


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("green apple", "green aple", 10 / 11), ("abcd", "abxx", 0.5), ("abc", "xyz", 0), ("Dog", "dog", 1), ("", "", 1)],
)
@pytest.mark.parametrize("variant", ["official", "lmms-eval", "m4c"])
def test_anls(answer, reference, expected, variant):
    assert score_anls(answer, [reference, "qqqqqqqqqqqqq"], variant=variant) == pytest.approx(expected)


def test_anls_divides_by_other_lengths_in_m4c():
    assert score_anls("a  bd", ["a  bc"]) == pytest.approx(1 - 1 / 5)
    assert score_anls("a bd  ", ["a bc"]) == pytest.approx(1 - 1 / 6)
    assert score_anls("a bd  ", ["a bc"], variant="m4c") == pytest.approx(1 - 1 / 4)
    with pytest.raises(ValueError, match="at least one"):
        score_anls("a", [])
    assert parse_anls("  ") is None


def test_direct_answers_leave_nobody_out():
    assert score_direct_answer("dog", ["dog"] * 2 + ["cat"] * 8) == pytest.approx(2 / 3)
    assert score_direct_answer("dog", ["dog"] * 3 + ["cat"] * 7) == 1
    assert score_direct_answer("Dog.", ["dog"] * 3 + ["cat"] * 7) == 0
    assert score_direct_answer("Dog.", ["dog"] * 3 + ["cat"] * 7, variant="lowercase") == 1
    assert score_direct_answer(" ", [" "] * 10) == 0
    assert parse_direct_answer(" ") is None


@pytest.mark.parametrize(
    ("answer", "official", "lmms"),
    [
        *(("B", 1, 1), ("b", None, 1), ("B. blue", 1, 1), ("B.", None, 1), ("B.blue", None, 1), (" B", None, 1)),
        *(("The answer is C.", 2, None), ("So. The answer is C because", 2, None), ("The answer is C", None, None)),
        *(("The answer is B. The answer is C.", None, None), ("E", None, None), ("", None, None), ("blue", None, None)),
        ("F", None, None),
    ],
)
def test_choice_of_scienceqa(answer, official, lmms):
    choices = ["red", "blue", "green"]
    assert parse_choice(answer, choices) == official
    assert parse_choice(answer, choices, variant="lmms-eval") == lmms
    assert score_choice(answer, choices, 1) == (official == 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("blue", 1),
        ("Blue.", 1),
        ("B", 1),
        ("(b) blue", 1),
        ("B: blue", 1),
        ("a", 0),
        ("bluish", None),
        ("z", None),
        ("", None),
    ],
)
def test_choice_of_aokvqa(answer, expected):
    assert parse_choice(answer, ["red", "blue", "green", "black"], variant="aokvqa") == expected


def test_text_of_an_option_comes_before_its_letter():
    assert parse_choice("b", ["b", "c"], variant="aokvqa") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda variant: normalize_answer("a", variant=variant),
        lambda variant: score_vqa("a", ["a", "a"], variant=variant),
        lambda variant: score_exact_match("a", ["a"], variant=variant),
        lambda variant: score_anls("a", ["a"], variant=variant),
        lambda variant: score_direct_answer("a", ["a"], variant=variant),
        lambda variant: parse_choice("a", ["a"], variant=variant),
        lambda variant: parse_yes_no("a", variant=variant),
        lambda variant: parse_mme("a", variant=variant),
        lambda variant: parse_box("a", variant=variant),
        lambda variant: summarize_pope(["yes"], ["yes"], variant=variant),
    ],
)
def test_misspelt_variants_are_named(call):
    with pytest.raises(ValueError, match=r"no variant 'lmms_eval' of this metric: known are .*lmms-eval|lowercase"):
        call("lmms_eval")
