"""POPE and MME."""

import pytest

from lyrics.evaluation.metrics.mme import COGNITION, PERCEPTION, MmeResult, parse_mme, score_mme, summarize_mme
from lyrics.evaluation.metrics.pope import score_pope, summarize_pope
from lyrics.evaluation.metrics.yes_no import parse_yes_no

ANSWERS = ["Yes, there is.", "There is not a dog", "no", "Maybe"]
LABELS = ["yes", "yes", "no", "no"]


def test_official_pope_of_the_test_vector():
    predictions = [parse_yes_no(answer) for answer in ANSWERS]
    assert predictions == ["yes", "no", "no", "yes"]
    expected = dict.fromkeys(("accuracy", "precision", "recall", "f1", "yes_ratio"), 50)
    assert summarize_pope(predictions, LABELS) == pytest.approx(expected)


def test_lmms_eval_takes_whole_answers_only():
    scores = [score_pope(*pair, variant="lmms-eval") for pair in zip(ANSWERS, LABELS, strict=True)]
    assert scores == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("answer", "official", "lmms", "vlmevalkit"),
    [
        *(
            ("NO", "yes", "no", "no"),
            ("", "yes", None, None),
            ("maybe", "yes", None, None),
            ("no\n", "yes", "no", "no"),
        ),
        *(("No, sir", "no", None, "no"), ("Yes. no", "yes", None, None), ("Yes.", "yes", None, "yes")),
        *((" yes ", "yes", "yes", "yes"), ("Nope", "yes", None, None), ("It is not.", "no", None, None)),
    ],
)
def test_reading_of_yes_and_no(answer, official, lmms, vlmevalkit):
    assert parse_yes_no(answer) == official
    assert parse_yes_no(answer, variant="lmms-eval") == lmms
    assert parse_yes_no(answer, variant="vlmevalkit") == vlmevalkit


def test_pope_without_a_yes_has_no_division_by_zero():
    summary = summarize_pope(["no", None], ["no", "no"])
    assert summary == {"accuracy": 50, "precision": 0, "recall": 0, "f1": 0, "yes_ratio": 0}
    assert summarize_pope(["yes", None], ["yes", "yes"])["recall"] == 50
    assert summarize_pope(["yes", None], ["yes", "yes"], variant="lmms-eval")["recall"] == 100


def test_pope_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="1 predictions and 2 labels"):
        summarize_pope(["no"], ["no", "no"])
    with pytest.raises(ValueError, match="not 'Yes'"):
        summarize_pope(["no"], ["Yes"])


@pytest.mark.parametrize(
    ("answer", "official", "lmms"),
    [
        *(("Yes", "yes", "yes"), ("no.", "no", "no"), ("y", None, "yes"), ("N.", None, "no"), (" yes", "yes", "yes")),
        *(("know", "no", "no"), ("  \n no", None, "no"), ("It is", None, None), ("", None, None), ("n.o", None, "no")),
        ("ayes no", "yes", "yes"),
    ],
)
def test_reading_of_mme(answer, official, lmms):
    assert parse_mme(answer) == official
    assert parse_mme(answer, variant="lmms-eval") == lmms
    assert score_mme(answer, "yes") == (official == "yes")


def test_mme_counts_questions_and_images():
    results = [
        MmeResult("color", "a", 1),
        MmeResult("color", "b", 1),
        MmeResult("color", "a", 1),
        MmeResult("color", "b", 0),
    ]
    summary = summarize_mme(results)
    assert summary == {"color": 125, "accuracy, color": 75, "accuracy_plus, color": 50}


def test_mme_sums_whole_sets_of_subtasks():
    results = [MmeResult(subtask, "a", score) for subtask in PERCEPTION for score in (1, 1)]
    assert summarize_mme(results)["perception"] == 2000
    assert "cognition" not in summarize_mme(results)
    results += [MmeResult(subtask, "a", score) for subtask in COGNITION for score in (1, 0)]
    assert summarize_mme(results)["cognition"] == 200


def test_mme_refuses_single_questions_and_unknown_subtasks():
    with pytest.raises(ValueError, match="'a' of color has 1"):
        summarize_mme([MmeResult("color", "a", 1)])
    with pytest.raises(ValueError, match="no subtask 'colour'"):
        summarize_mme([MmeResult("colour", "a", 1)])
