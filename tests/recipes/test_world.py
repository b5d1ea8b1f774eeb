"""Scenes, questions and data sets of the micro world: what is said about a scene is true of its image."""

import re
from collections import Counter

import numpy as np
import pytest
from datasets import load_from_disk

from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.recipes.micro import FAMILIES, HELD_OUT, SymbolicDialogues, ask, ask_many, draw_scene, write_rows
from lyrics.recipes.micro.world.datasets import DialogueRows
from lyrics.recipes.micro.world.objects import COLORS, SHAPES, SIZES

NUMBERS = range(40)


def combinations(split):
    return {(thing.color, thing.shape) for number in NUMBERS for thing in draw_scene(split, number).objects}


def test_scenes_depend_on_split_and_number_alone():
    first, again = draw_scene("train", 3), draw_scene("train", 3)
    assert first.image.tobytes() == again.image.tobytes()
    others = [draw_scene("train", 4), draw_scene("validation", 3), draw_scene("test", 3)]
    assert all(first.image.tobytes() != other.image.tobytes() for other in others)


def test_only_test_scenes_show_the_held_out_combinations():
    assert not combinations("train") & HELD_OUT
    assert not combinations("validation") & HELD_OUT
    assert combinations("test") & HELD_OUT


@pytest.mark.parametrize("number", range(10))
def test_labels_of_objects_fit_the_image(number):
    """Masks do not overlap, boxes fit them tightly, and most pixels of an object have its color."""
    scene = draw_scene("test", number)
    pixels = np.asarray(scene.image, float)
    assert 2 <= len(scene.objects) <= 9
    assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1
    for thing in scene.objects:
        x1, y1, x2, y2 = (round(value * 128) for value in thing.box)
        inside = thing.mask[y1:y2, x1:x2]
        assert inside.sum() == thing.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        distances = np.stack([np.abs(pixels[thing.mask] - rgb).sum(axis=1) for rgb in COLORS.values()])
        assert COLORS[np.bincount(distances.argmin(axis=0)).argmax()] == thing.color


def middle(thing):
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def described(scene, words):
    """Return the objects that a phrase such as `the small red circle` describes."""
    known = {*words.split()} & {*COLORS, *SHAPES, *SIZES}
    return [thing for thing in scene.objects if known <= {thing.color, thing.shape, thing.size}]


def true_answers(scene, question):
    """Return the correct answers, derived from the words of the question only."""
    words = re.sub(r"[?.]", "", question.text).replace("crosses", "cross")
    words = " ".join(word[:-1] if word[:-1] in SHAPES else word for word in words.split())
    fitting = described(scene, words)
    match question.kind:
        case "existence":
            return ["yes" if fitting else "no"]
        case "count":
            return [str(len(fitting))]
        case "color":
            return [thing.color for thing in fitting]
        case "shape":
            return [thing.shape for thing in fitting]
        case "reading":
            return [thing.character for thing in fitting]
        case "relation" if question.variant == "largest":
            largest = max(scene.objects, key=lambda thing: thing.mask.sum())
            return [f"{largest.color} {largest.shape}"]
        case "relation":
            first, way, second = re.fullmatch(r"Is the (.*) (left of|right of|above|below) the (.*)", words).groups()
            (x1, y1), (x2, y2) = (middle(described(scene, one)[0]) for one in (first, second))
            true = {"left of": x1 < x2, "right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}[way]
            return ["yes" if true else "no"]
        case "description":
            shown = [thing for thing in scene.objects if thing.box == question.box]
            article = {"a", "an"}
            return [
                question.answer
                for thing in shown
                if {thing.size, thing.color, thing.shape} < {*question.answer.split()}
                and article & {*question.answer.split()}
                and (thing.character or "") in question.answer
            ]
        case "referring":
            return [question.answer for thing in fitting if thing.box == question.box]
        case _:
            return [question.answer] if all(described(scene, one) for one in NAMES.findall(question.answer)) else []


NAMES = re.compile(rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})")

VARIANTS = {
    "existence": {"random", "popular", "adversarial"},
    "count": {"shape", "color", "all"},
    "relation": {"largest", "place"},
}


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_answers_are_true(kind):
    """Each question has one correct answer, which is the given one."""
    asked = []
    for number in range(60):
        scene = draw_scene("test", number)
        question = ask(scene, kind, np.random.default_rng(number))
        if question is not None:
            asked.append(question.variant)
            assert true_answers(scene, question) == [question.answer], (number, question)
    assert len(asked) > 15
    assert set(asked) == VARIANTS.get(kind, {""})


def test_no_count_is_much_more_frequent_than_others():
    """Although most colors and shapes occur once in a scene, or never."""
    questions = [ask(draw_scene("test", number), "count", np.random.default_rng(number)) for number in range(200)]
    for kind in ("color", "shape"):
        answers = Counter(question.answer for question in questions if question.variant == kind)
        assert "0" in answers
        assert max(answers.values()) < 0.45 * answers.total()


def test_stored_rows_are_valid_conversations(tmp_path):
    write_rows(tmp_path / "rows", "train", 4)
    rows = load_from_disk(tmp_path / "rows")
    for row in rows:
        conversation = read_conversation({"messages": row["messages"], "images": [row["image"]]})
        assert conversation.messages[0]["content"][0]["type"] == "image"
    questions = ask_many(draw_scene("train", 0), 8, np.random.default_rng(0))
    assert len({(question.text, question.box) for question in questions}) == len(questions) > 2


def test_dialogues_about_images_do_not_name_held_out_combinations():
    """The answer would always be no. Dialogues about symbols do, since symbols have all combinations."""
    held_out = "|".join(f"{color} {shape}" for color, shape in HELD_OUT)

    def named(rows):
        texts = [str(rows[index]["messages"]) for index in range(len(rows))]
        return sum(len(re.findall(held_out, text)) for text in texts)

    assert named(DialogueRows("train", scenes=200)) == 0
    assert named(SymbolicDialogues("train", 200)) > 0


def test_dialogues_about_the_same_scene_differ(tmp_path):
    """They have the key and the image of the stored row, by which the store finds its objects."""
    rows = DialogueRows("train", scenes=3, first=5, dialogues=2)
    write_rows(tmp_path / "rows", "train", 3, first=5)
    for index, stored in enumerate(load_from_disk(tmp_path / "rows")):
        row, again = rows[index], rows[index + 3]
        assert row["key"] == again["key"] == stored["key"]
        assert row["image"].tobytes() == again["image"].tobytes() == stored["image"].tobytes()
        assert row["messages"] != again["messages"]
    with pytest.raises(IndexError):
        rows[6]


def test_every_scene_has_the_same_number_of_dialogues():
    """In groups of 64 scenes. The last group is smaller."""
    rows = DialogueRows("train", scenes=66, dialogues=2)
    keys = [rows[index]["key"] for index in range(len(rows))]
    assert set(Counter(keys).values()) == {2}
    assert keys[:64] == keys[64:128]
    assert keys[128:130] == keys[130:]


def test_the_first_dialogues_about_images_are_lookups():
    rows = DialogueRows("train", scenes=20, lookups=10)
    asked = [rows[index]["messages"][0]["content"][0]["text"] for index in range(20)]
    lookups = [text.startswith(("What color", "What shape", "Which character")) for text in asked]
    assert all(lookups[:10])
    assert not all(lookups[10:])


LOOKUPS = ("What color", "What shape", "Which character")
PLACES = ("Where is", "Find the")
COUNTS = ("How many", "Is there", "Do you see")


def questions_of(row):
    return [message["content"][-1]["text"] for message in row["messages"][::2]]


def ask_about(group, number, **settings):
    return [
        text
        for index in range(number)
        for text in questions_of(SymbolicDialogues("train", 20, groups=[group], **settings)[index])
    ]


def test_each_group_asks_its_own_kinds_of_questions():
    assert all(text.startswith(LOOKUPS) for text in ask_about("lookups", 20))
    assert all(text.startswith((*PLACES, "What color")) for text in ask_about("places", 20))
    assert all(text.startswith(COUNTS) for text in ask_about("counts", 20))
    for beginnings in (PLACES, LOOKUPS, ("How many",), ("Is the",)):
        assert any(text.startswith(beginnings) for text in ask_about("everything", 20))


@pytest.mark.parametrize(("group", "more"), [("counts", True), ("lookups", False)])
def test_counting_scenes_can_have_many_objects_that_are_alike(group, more):
    """Lookups keep objects that differ."""

    def scenes_of_many(alike):
        rows = SymbolicDialogues("train", 60, groups=[group], alike=alike)
        colors = [Counter(thing.color for thing in rows[index]["objects"]) for index in range(60)]
        return sum(max(counts.values()) > 3 for counts in colors)

    assert (scenes_of_many(alike=True) > scenes_of_many(alike=False) + 5) == more


def test_groups_alternate():
    rows = SymbolicDialogues("train", 256, groups=["lookups", "places"])
    for first, beginnings in ((0, LOOKUPS), (64, PLACES), (128, LOOKUPS), (192, PLACES)):
        texts = [text for index in range(first, first + 64, 8) for text in questions_of(rows[index])]
        assert sum(text.startswith(beginnings) for text in texts) > 0.5 * len(texts)


@pytest.mark.parametrize("groups", [[], ["lookups", "colors"]])
def test_unknown_groups_are_refused(groups):
    with pytest.raises(ValueError, match=r"groups must be some of everything, .*, got \["):
        SymbolicDialogues("train", 2, groups=groups)


def test_symbols_are_the_objects_of_the_scene():
    """In another order, from the first scene on."""
    rows = SymbolicDialogues("train", 3, first=7)
    for number, row in enumerate(map(rows.__getitem__, range(3)), 7):
        shown = {thing.box for thing in draw_scene("train", number).objects}
        assert {thing.box for thing in row["objects"]} == shown
        assert row["messages"][0]["content"][0] == {"type": "image"}


def test_recolored_scenes_have_held_out_combinations():
    """Boxes and the number of colors stay the same."""
    plain, recolored = (SymbolicDialogues("train", 40, recolored=other) for other in (False, True))
    pairs = [(plain[index], recolored[index]) for index in range(40)]
    assert {(thing.color, thing.shape) for _, row in pairs for thing in row["objects"]} & HELD_OUT
    for one, other in pairs:
        assert sorted(thing.box for thing in one["objects"]) == sorted(thing.box for thing in other["objects"])
        assert len({thing.color for thing in one["objects"]}) == len({thing.color for thing in other["objects"]})
