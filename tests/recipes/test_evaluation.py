"""Evaluation of answers: correctness, held-out combinations, and guessing baselines."""

import pytest

from lyrics.recipes.micro.evaluate import guessing_accuracies
from lyrics.recipes.micro.world.cases import KINDS, draw_cases, is_correct
from lyrics.recipes.micro.world.questions import Question, novelty
from lyrics.trainers.rewards import box_iou


def test_a_box_is_correct_from_an_iou_of_a_half():
    question = Question("referring", "Where is the red ring?", "red ring", (0.0, 0.0, 0.5, 0.5))
    assert box_iou((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25)) == pytest.approx(0.5)
    assert is_correct(question, "red ring: [0.000, 0.000, 0.500, 0.260]")
    assert not is_correct(question, "red ring: [0.000, 0.000, 0.500, 0.240]")
    assert not is_correct(question, "red ring")


def test_a_sentence_is_correct_with_and_without_its_full_stop():
    question = Question("premise", "Where is the red ring?", "There is no red ring.")
    assert all(is_correct(question, answer) for answer in ("There is no red ring.", "there is no red ring"))
    assert not is_correct(question, "There is no red star.")


@pytest.mark.parametrize(
    ("kind", "text", "answer", "expected"),
    [
        ("color", "What color is the large cross?", "purple", "held out"),
        ("color", "What color is the large cross?", "red", "shown"),
        ("referring", "Where is the blue star?", "blue star", "held out"),
        ("description", "What is this?", "a small blue ring with the character T", "shown"),
        ("relation", "Is the blue star left of the red ring?", "yes", None),
        ("count", "How many crosses are there?", "2", None),
    ],
)
def test_questions_about_held_out_combinations_are_recognized(kind, text, answer, expected):
    assert novelty(Question(kind, text, answer)) == expected


def test_guessing_gives_few_correct_answers():
    found = guessing_accuracies(draw_cases(40))
    assert set(found["majority"]) == set(KINDS)
    assert all(by_kind.pop("outside") == 100 for by_kind in found.values())  # they have one answer
    assert all(value < 75 for by_kind in found.values() for value in by_kind.values())
