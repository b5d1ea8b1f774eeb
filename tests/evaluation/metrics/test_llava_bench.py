"""The judge's prompt, its review, and the scores relative to the reference."""

import math

import pytest

from lyrics.evaluation.metrics.llava_bench import JudgeScores, judge_prompt, parse_scores, summarize_llava_bench


def test_prompt_has_the_blocks_of_the_benchmark():
    prompt = judge_prompt("a room", "What is it?", "A room.", "A house.", rule="Judge.")
    assert prompt == (
        "[Context]\na room\n\n[Question]\nWhat is it?\n\n[Assistant 1]\nA room.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nA house.\n\n[End of Assistant 2]\n\n[System]\nJudge.\n\n"
    )


def test_other_order_swaps_answers_and_scores():
    prompt = judge_prompt("a room", "What is it?", "A room.", "A house.", swapped=True)
    assert prompt.index("A house.") < prompt.index("A room.")
    assert parse_scores("7 9\nBecause.", swapped=True) == JudgeScores(reference=9, candidate=7)


@pytest.mark.parametrize("review", ["8 6\nBecause 2 ...", "8, 6", " 8.0 6.0 ", "Assistant one: 8; two: 6"])
def test_scores_of_a_review(review):
    assert parse_scores(review) == JudgeScores(8, 6)


@pytest.mark.parametrize("review", ["", "\n", "8", "8 6 7", "11 5", "0 5", "-8 6", "eight six", "Sorry.\n8 6"])
def test_reviews_without_two_scores(review):
    assert parse_scores(review) is None


def test_failed_reviews_are_counted_and_left_out():
    scores = [JudgeScores(8, 4), None, JudgeScores(10, 8), JudgeScores(6, 9)]
    summary = summarize_llava_bench(scores, ["conv", "conv", "detail", "conv"])
    assert summary == pytest.approx({"all": 100 * 21 / 24, "conv": 100 * 13 / 14, "detail": 80, "failed": 1})
    assert math.isnan(summarize_llava_bench([None])["all"])
    with pytest.raises(ValueError, match="1 scores and 2 categories"):
        summarize_llava_bench([None], ["conv", "conv"])
