"""The micro world: what is said about a scene is true of its picture."""

import numpy as np
import pytest
from datasets import load_from_disk

from lyrics.recipes.micro import FAMILIES, HELD_OUT, WordRows, ask, ask_many, draw_scene, write_rows
from lyrics.recipes.micro.world import COLORS
from lyrics.trainers.conversations import read_conversation

NUMBERS = range(40)


def pairs(split):
    return {(thing.color, thing.shape) for number in NUMBERS for thing in draw_scene(split, number).objects}


def test_scenes_depend_on_split_and_number_alone():
    first, again = draw_scene("train", 3), draw_scene("train", 3)
    assert first.image.tobytes() == again.image.tobytes()
    others = [draw_scene("train", 4), draw_scene("validation", 3), draw_scene("test", 3)]
    assert all(first.image.tobytes() != other.image.tobytes() for other in others)


def test_only_test_scenes_show_the_held_out_combinations():
    assert not pairs("train") & HELD_OUT
    assert not pairs("validation") & HELD_OUT
    assert pairs("test") & HELD_OUT


@pytest.mark.parametrize("number", range(10))
def test_objects_are_where_and_what_is_said(number):
    """Masks do not meet, boxes fit them tightly, and most pixels of an object have its colour."""
    scene = draw_scene("test", number)
    pixels = np.asarray(scene.image, float)
    assert 1 <= len(scene.objects) <= 9
    assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1
    for thing in scene.objects:
        x1, y1, x2, y2 = (round(value * 128) for value in thing.box)
        inside = thing.mask[y1:y2, x1:x2]
        assert inside.sum() == thing.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        distances = np.stack([np.abs(pixels[thing.mask] - rgb).sum(axis=1) for rgb in COLORS.values()])
        assert list(COLORS)[np.bincount(distances.argmin(axis=0)).argmax()] == thing.color


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_answers_are_true(kind):
    asked = 0
    for number in NUMBERS:
        scene = draw_scene("test", number)
        question = ask(scene, kind, np.random.default_rng(number))
        if question is None:
            continue
        asked += 1
        names = [f"{thing.color} {thing.shape}" for thing in scene.objects]
        if kind == "existence":
            words = question.text.rstrip("?").split()[-2:]
            assert (question.answer == "yes") == (" ".join(words) in names)
        elif kind == "referring":
            assert question.box in [thing.box for thing in scene.objects if question.answer.endswith(thing.shape)]
        elif kind == "count" and question.variant == "all":
            assert question.answer == str(len(scene.objects))
        elif kind == "reading":
            assert question.answer in [thing.character for thing in scene.objects]
        elif kind == "color":
            shape = question.text.rstrip("?").split()[-1]
            assert question.answer in [thing.color for thing in scene.objects if thing.shape == shape]
    assert asked > len(NUMBERS) / 4


def test_rows_are_what_the_trainers_read(tmp_path):
    write_rows(tmp_path / "rows", "train", 4)
    rows = load_from_disk(tmp_path / "rows")
    for row in rows:
        conversation = read_conversation({"messages": row["messages"], "images": [row["image"]]})
        assert conversation.messages[0]["content"][0]["type"] == "image"
    told = read_conversation(WordRows("train", 4)[0])
    assert "[" in told.messages[0]["content"][0]["text"]
    questions = ask_many(draw_scene("train", 0), 8, np.random.default_rng(0))
    assert len({(question.text, question.box) for question in questions}) == len(questions) > 2
