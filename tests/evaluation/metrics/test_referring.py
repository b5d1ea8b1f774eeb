"""Boxes of answers, their overlap and its summary."""

import pytest

from lyrics.evaluation.metrics.referring import box_iou, parse_box, score_box, summarize_referring
from lyrics.processing_lyrics import format_object

HALF = (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "answer",
    [
        format_object("red star", HALF),
        "[0.1, 0.2, 0.3, 0.4]",
        "It is at [.1,.2,.3,.4] and [0, 0, 1, 1].",
        "(0.1, 0.2, 0.3, 0.4)",
        "[0.3, 0.4, 0.1, 0.2]",
        "[0.3, 0.2, 0.1, 0.4]",
        "[1, 2, 3] [ 0.10,0.20 , 0.300, 0.4 ]",
    ],
)
def test_first_box_of_an_answer(answer):
    assert parse_box(answer) == HALF


@pytest.mark.parametrize(
    "answer", ["", "no box", "[0.1, 0.2, 0.3]", "[0.1 0.2 0.3 0.4]", "[a, b, c, d]", "[1, 2, 3, 4, 5]"]
)
def test_answers_without_a_box(answer):
    assert parse_box(answer) is None
    assert parse_box(answer, variant="lmms-eval") is None


def test_boxes_in_pixels():
    assert parse_box("[20, 20, 60, 40]", coordinates="pixels", size=(200, 100)) == HALF
    assert parse_box("[20, 20, 60, 40]", coordinates="auto", size=(200, 100)) == HALF
    assert parse_box("[0.1, 0.2, 0.3, 0.4]", coordinates="auto", size=(200, 100)) == HALF
    with pytest.raises(ValueError, match="need the width and height"):
        parse_box("[20, 20, 60, 40]", coordinates="pixels")


def test_lmms_eval_keeps_reversed_corners_which_overlap_with_nothing():
    box = parse_box("[0.3, 0.4, 0.1, 0.2]", variant="lmms-eval")
    assert box == (0.3, 0.4, 0.1, 0.2)
    assert box_iou(box, HALF) == 0
    assert parse_box("[.1, .2, .3, .4]", variant="lmms-eval") is None


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (HALF, 1),
        ((0.2, 0.2, 0.4, 0.4), 1 / 3),
        ((0.3, 0.2, 0.5, 0.4), 0),
        ((0.5, 0.5, 0.6, 0.6), 0),
        ((0.1, 0.2, 0.1, 0.2), 0),
    ],
)
def test_iou(other, expected):
    assert box_iou(HALF, other) == pytest.approx(expected)
    assert box_iou(other, HALF) == pytest.approx(expected)


def test_iou_does_not_change_with_units():
    scaled = [
        [value * side for value, side in zip(box, (640, 480) * 2, strict=True)] for box in (HALF, (0.2, 0.2, 0.4, 0.3))
    ]
    assert box_iou(*scaled) == pytest.approx(box_iou(HALF, (0.2, 0.2, 0.4, 0.3)))


def test_box_at_the_threshold_is_right_and_no_box_is_wrong():
    assert score_box((0, 0, 1, 1), (0, 0, 1, 2)) == 1
    assert score_box((0, 0, 1, 1), (0, 0, 1, 2.01)) == 0
    assert score_box(None, HALF) == 0


def test_summary():
    summary = summarize_referring([1, 0.6, 0.2, None])
    assert summary["accuracy@0.5"] == 50
    assert summary["accuracy@0.1"] == 75
    assert summary["accuracy@0.9"] == 25
    assert summary["mean_iou"] == pytest.approx(45)
