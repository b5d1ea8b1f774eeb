"""Messages of rows: every wording can be written, and texts with marks and braces stay texts."""

import pytest

from lyrics.datasets_lyrics.catalog.messages import TurnWriter, messages_of
from lyrics.datasets_lyrics.catalog.wordings import WORDINGS
from lyrics.utils.seeding import generator

ROW = {"dataset": "mine", "id": "1", "task": "vqa", "images": ["a.jpg"], "question": "What is {name} in <box> {?}"}
ROW |= {"answers": ["a {question}"], "choices": ["a {question}", "b"], "messages": []}
ROW |= {"regions": [{"phrase": "red {choices} <box>", "box": [0.1, 0.2, 0.3, 0.4]}]}

NEEDS = {
    "short_answer": ["{question}"],
    "long_answer": ["{question}"],
    "read_short": ["{question}"],
    "choice": ["{question}", "{choices}"],
    "locate": ["{name}"],
    "describe_region": ["<box>"],
    "region_question": ["{question}", "<box>"],
    "point": ["{question}"],
    "existence": ["{name}"],
    "count": ["{name}"],
}


@pytest.mark.parametrize("kind", WORDINGS)
def test_wordings_hold_what_their_task_needs(kind):
    assert len(set(WORDINGS[kind])) == len(WORDINGS[kind]) >= 4
    for wording in WORDINGS[kind]:
        assert all(wording.count(mark) == 1 for mark in NEEDS.get(kind, []))
        assert wording.count("{") == sum(mark.startswith("{") for mark in NEEDS.get(kind, []))


@pytest.mark.parametrize(
    "task",
    ["caption", "detailed_caption", "vqa", "text_vqa", "choice", "locate", "describe_region", "region_vqa", "point"],
)
def test_texts_with_marks_stay_texts(task):
    writer = TurnWriter(boxes="labeled")
    for epoch in range(30):
        question, answer = writer.write(ROW, task, generator(0, epoch, "", "test"))
        said = "".join(block.get("text", "") for block in question)
        if task in ("vqa", "text_vqa", "choice", "region_vqa", "point"):
            assert ROW["question"] in said
        boxes = [block["box"] for block in (*question, *answer) if block["type"] == "box"]
        assert boxes == [[0.1, 0.2, 0.3, 0.4]] * (task in ("locate", "describe_region", "region_vqa", "point"))


def test_what_a_task_lacks_is_told():
    with pytest.raises(ValueError, match="Row 1 of mine has no regions, which its task needs"):
        TurnWriter().write(ROW | {"regions": []}, "locate")
    with pytest.raises(ValueError, match="There is no task 'sing'"):
        TurnWriter().write(ROW, "sing")


def test_the_most_frequent_answer_is_taken_or_one_is_drawn():
    row = ROW | {"answers": ["b", "a", "a"]}
    assert messages_of(row)[1]["content"] == [{"type": "text", "text": "a"}]
    drawn = {
        TurnWriter(sample_answers=True).write(row, None, generator(0, epoch, "", "test"))[1][0]["text"]
        for epoch in range(30)
    }
    assert drawn == {"a", "b"}
