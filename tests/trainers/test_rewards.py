"""Rewards as pure functions of an answer and of what is expected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.processing_lyrics import format_object
from lyrics.trainers.rewards import (
    REWARDS,
    box_iou,
    find_rewards,
    score_count,
    score_exact,
    score_existence,
    score_format,
    score_iou,
    score_words,
)

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
CUP, DOG = format_object("cup", LEFT), format_object("dog", RIGHT)


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [
        (CUP, [LEFT], 1.0),
        (CUP, [RIGHT], 0.0),
        ("[0.000, 0.000, 0.500, 0.500]", [LEFT], 0.5),
        (f"{CUP}; {DOG}", [RIGHT, LEFT], 1.0),  # in any order
        (f"{CUP}; {DOG}", [LEFT], 0.5),  # one too many
        (CUP, [LEFT, RIGHT], 0.5),  # one too few
        (f"{CUP}; {CUP}", [LEFT], 0.5),  # one box is matched once
        ("on the left", [LEFT], 0.0),
        ("There is no cup.", [], 1.0),
        (CUP, [], 0.0),
    ],
)
def test_iou(answer, expected, reward):
    assert score_iou(answer, expected) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [
        (CUP, [RIGHT], 1.0),  # the place does not matter
        (f"{CUP}; {DOG}.", [LEFT], 1.0),
        ("[0.100, 0.200, 0.300, 0.400]", [LEFT], 1.0),
        ("[0.1, 0.2, 0.3, 0.4]", [LEFT], 0.0),  # decimals
        ("[0.300, 0.200, 0.100, 0.400]", [LEFT], 0.0),  # corners
        (f"a cup {CUP.removeprefix('cup: ')}", [LEFT], 0.0),
        (f"{CUP} and more", [LEFT], 0.0),
        (f"{CUP}; dog: [0.1, 0.2]", [LEFT], 0.0),
        ("a cup", [LEFT], 0.0),
        ("There is no cup.", [], 1.0),
        ("no [cup]", [], 0.0),
    ],
)
def test_format(answer, expected, reward):
    assert score_format(answer, expected) == reward


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [
        ("3", 3, 1.0),
        ("There are three cups.", 3, 1.0),
        ("There are no cups.", 0, 1.0),
        (f"2: {CUP}", 2, 1.0),
        ("3 or 4", 3, 0.0),
        ("33", 3, 0.0),
        ("3.5", 3, 0.0),
        ("many", 3, 0.0),
        ("someone", 1, 0.0),
    ],
)
def test_count(answer, expected, reward):
    assert score_count(answer, expected) == reward


@pytest.mark.parametrize(
    ("answer", "yes", "no"),
    [
        ("Yes.", 1.0, 0.0),
        ("no, there is none", 0.0, 1.0),
        ("There is no cup.", 0.0, 1.0),
        ("There isn't one.", 0.0, 1.0),
        ("There are two.", 1.0, 0.0),
        ("There is nobody", 0.0, 1.0),
        ("There is not a cup.", 0.0, 1.0),
        ("there are none", 0.0, 1.0),
        ("There isn\u2019t one.", 0.0, 1.0),
        ("There's no cup.", 0.0, 1.0),
        ("There's a cup.", 1.0, 0.0),
        ("There is a notebook.", 1.0, 0.0),
        ("There is nothingness", 1.0, 0.0),
        ("Nobody", 0.0, 0.0),
        ("Yesterday", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
        ("Maybe yes", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_existence(answer, yes, no):
    assert (score_existence(answer, True), score_existence(answer, False)) == (yes, no)


def test_texts():
    assert score_exact(" A red Cup.", "a red cup") == 1.0
    assert score_exact("a cup", "a red cup") == 0.0
    assert score_words("a red cup", "a red cup") == 1.0
    assert score_words("cup red", "a red cup") == pytest.approx(0.8)
    assert score_words("red red red red", "a red cup") == pytest.approx(2 / 7)  # repetition is no help
    assert score_words("dog", "a red cup") == 0.0


boxes = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda one: (min(one[0], one[2]), min(one[1], one[3]), max(one[0], one[2]), max(one[1], one[3]))
)


@given(answer=st.text(alphabet="[]0123456789., :;yesno\n"), expected=st.lists(boxes, max_size=3))
def test_rewards_are_between_zero_and_one(answer, expected):
    for score in (score_iou, score_format):
        assert 0.0 <= score(answer, expected) <= 1.0 + 1e-9
    assert score_count(answer, 3) in (0.0, 1.0)
    assert 0.0 <= score_words(answer, "yes no") <= 1.0


@given(boxes, boxes)
def test_the_overlap_is_symmetric(one, other):
    assert box_iou(one, other) == box_iou(other, one)


def test_a_row_without_the_column_is_not_scored():
    completions = [[{"role": "assistant", "content": "3"}], "4"]
    assert REWARDS["count"](completions=completions, prompts=["", ""], expected_count=[3, None]) == [1.0, None]
    assert REWARDS["iou"](completions=completions) == [None, None]
    assert REWARDS["count"].__name__ == "count"


def test_rewards_are_found_by_name():
    assert find_rewards(["iou", "lyrics.trainers.rewards.score_exact"]) == [REWARDS["iou"], score_exact]
    for names, message in (
        (["iou", "iou"], "different names"),
        ([], "one or more"),
        (["ious"], "There is no reward 'ious'"),
        (["lyrics.none.reward"], "cannot be imported: No module named 'lyrics.none'"),
        (["lyrics.trainers.rewards.REWARDS"], "is no function, but a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            find_rewards(names)
