"""Scenes, questions and data sets of the micro world: what is said about a scene is true of its image."""

import re
from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from datasets import load_from_disk

from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.processing_lyrics import format_object
from lyrics.recipes.micro import FAMILIES, HELD_OUT, SymbolicDialogues, ask, ask_many, draw_scene, write_rows
from lyrics.recipes.micro.world.datasets import DialogueRows, QuestionRows
from lyrics.recipes.micro.world.names import ANY, all_names
from lyrics.recipes.micro.world.objects import CHARACTERS, COLORS, SHAPES, SIZES, bounding_box
from lyrics.recipes.micro.world.scenes import draw_square
from lyrics.recipes.micro.world.second import draw_second_scene
from lyrics.recipes.micro.world.wordings import Wording, count_wordings
from lyrics.trainers.rewards import REWARDS

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
    """Masks do not overlap, and boxes fit them tightly."""
    scene = draw_scene("test", number)
    width, height = scene.image.size
    assert scene.size == (width, height)
    assert min(scene.size) == 128
    assert 1 <= len(scene.objects) <= 9
    assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1
    for thing in scene.objects:
        assert thing.mask.shape == (height, width)
        x1, y1, x2, y2 = (round(value * side) for value, side in zip(thing.box, (width, height) * 2, strict=True))
        inside = thing.mask[y1:y2, x1:x2]
        assert inside.sum() == thing.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("draw", [partial(draw_scene, "test"), draw_second_scene])
def test_objects_have_the_color_that_they_are_said_to_have(draw):
    """By their hue and brightness, in either world, whatever light, noise and files do to them."""
    seen = defaultdict(list)
    for number in range(60):
        scene = draw(number)
        pixels = np.asarray(scene.image.convert("HSV"), float) / 255
        for thing in scene.objects:
            seen[thing.color].append(np.median(pixels[thing.mask], axis=0))
    hues = {color: np.median([hue for hue, _, _ in values]) for color, values in seen.items() if color != "red"}
    assert sorted(hues, key=hues.get) == ["orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
    within = [min(hue, 1 - hue) < 0.08 for hue, _, _ in seen["red"]]
    within += [abs(value[0] - hues[color]) < 0.08 for color in hues for value in seen[color]]
    assert np.mean(within) > 0.9


@pytest.mark.parametrize("number", range(200))
def test_a_part_of_a_scene_has_the_objects_that_it_shows(number):
    whole, part = draw_scene("train", number), draw_square("train", number)
    assert part.size == (128, 128)
    assert len(part.objects) <= len(whole.objects)
    if whole.size == part.size:
        assert len(part.objects) == len(whole.objects)
    for thing in part.objects:
        assert thing.mask.shape == (128, 128)
        assert thing.mask.any()
        assert (thing.character is None) == (thing.character_box is None)
        assert 0 <= min(thing.box) < max(thing.box) <= 1
    assert draw_square("train", number, empty=False).objects


def test_scenes_have_all_aspect_ratios_from_a_third_to_three():
    ratios = np.array([width / height for width, height in (draw_scene("train", n).size for n in range(300))])
    assert 1 / 3 <= ratios.min() < 0.45
    assert 2.2 < ratios.max() <= 3
    assert 0.5 < np.mean(ratios == 1) < 0.7


@pytest.mark.parametrize("grounds", ["pale", "saturated", "textured"])
def test_the_second_world_has_the_same_words_and_true_labels(grounds):
    scenes = [draw_second_scene(number, grounds, ratio) for number in range(25) for ratio in (1.0, 2.0, 0.4)]
    for scene in scenes:
        assert scene.image.size == scene.size
        for thing in scene.objects:
            assert thing.color in COLORS
            assert thing.shape in SHAPES
            assert thing.size in SIZES
            assert thing.mask.shape == scene.size[::-1]
            assert thing.box == bounding_box(thing.mask)
    assert {thing.character for scene in scenes for thing in scene.objects} == {None, *CHARACTERS}
    areas = {size: [thing.area for thing in scenes[0].objects if thing.size == size] for size in SIZES}
    assert all(max(areas[one], default=0) < min(areas[other], default=10**6) for one, other in pairwise(SIZES))


def middle(thing):
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


MEANINGS = {**all_names(), **{word: (word,) for word in (*SHAPES, ANY)}, **{f"{ANY}s": (ANY,), "things": (ANY,)}}
MEANINGS |= {"shapes": (ANY,), "ones": (ANY,)}
FOREIGN = r"(?:black|white|brown|grey) \w+|\w+ (?:heart|hexagon|rectangle|arrow|diamond)s?"
NAME = re.compile(
    rf"\b(?:(?P<shape>\w+) (?:that is|in) (?P<color>{'|'.join(COLORS)})|(?P<foreign>{FOREIGN})|"
    rf"(?P<name>{'|'.join(sorted(MEANINGS, key=len, reverse=True))}))\b"
)


def meant(text):
    """Return the words that each name in a text means."""
    found = []
    for match in NAME.finditer(text.lower()):
        if match["foreign"]:
            found.append({"foreign"})
        elif match["shape"]:
            found.append({match["color"], *MEANINGS[match["shape"]]})
        else:
            found.append(set(MEANINGS[match["name"]]))
    return found


def described(scene, words):
    """Return the objects that words such as small, red and circle describe."""
    return [thing for thing in scene.objects if words - {ANY} <= {thing.color, thing.shape, thing.size}]


def true_answer(scene, kind, things, named):
    """Return the correct answer to a question of a kind about all things that a name describes."""
    if len(things) != 1:
        return f"There {'is no' if not things else f'are {len(things)}'} {named}."
    thing = things[0]
    if kind == "reading" and thing.character is None:
        return f"There is no character on the {named}."
    return {
        "color": thing.color,
        "shape": thing.shape,
        "size": thing.size,
        "reading": thing.character,
        "referring": thing.box,
    }[kind]


WAYS = {
    "left of": "left",
    "right of": "right",
    "above": "above|over|higher|further up",
    "below": "below|under|lower|beneath|further down",
}


def true_answers(scene, question):
    """Return the correct answers, derived from the words of the question only."""
    names = meant(question.text)
    fitting = described(scene, names[0]) if names else []
    match question.kind:
        case "existence":
            return ["yes" if fitting else "no"]
        case "count":
            return [str(len(fitting))]
        case "color" | "shape" | "size" | "reading":
            return [true_answer(scene, question.kind, fitting, "")]
        case "referring":
            assert question.box == true_answer(scene, question.kind, fitting, "")
            return [question.answer] if described(scene, meant(question.answer)[0]) == fitting else []
        case "relation" if question.variant == "largest":
            largest = max(scene.objects, key=lambda thing: thing.mask.sum())
            return [f"{largest.color} {largest.shape}"]
        case "relation":
            (x1, y1), (x2, y2) = (middle(described(scene, words)[0]) for words in names[:2])
            way = next(way for way, texts in WAYS.items() if re.search(texts, question.text.replace(", right", "")))
            true = {"left of": x1 < x2, "right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}[way]
            return ["yes" if true else "no"]
        case "description":
            shown = [thing for thing in scene.objects if thing.box == question.box]
            return [
                question.answer
                for thing in shown
                if {thing.size, thing.color, thing.shape} < {*question.answer.split()}
                and {"a", "an"} & {*question.answer.split()}
                and (thing.character or "") in question.answer
            ]
        case "premise":
            kind = "reading" if question.variant == "blank" else "referring"
            named = re.sub(r".*(?:is no|on the|are \d+) (.*)\.", r"\1", question.answer)
            assert meant(named) == names
            return [true_answer(scene, kind, fitting, named)]
        case "outside":
            return [] if names else ["I only know scenes of colored shapes."]
        case "follow_up":
            first = question.before[0]
            if question.variant == "another":
                words = names[0] if ANY not in names[0] or first.thing is None else names[0] | {question.thing.shape}
                assert described(scene, words) == [question.thing]
            else:
                assert described(scene, meant(first.text)[0]) == [question.thing]
            answer = question.box or question.answer
            possible = {true_answer(scene, kind, [question.thing], "") for kind in LOOKUP_KINDS}
            return [question.answer] if answer in possible or answer.startswith("There is no character") else []
        case _:
            return [question.answer] if all(described(scene, words) for words in meant(question.answer)) else []


LOOKUP_KINDS = ("color", "shape", "size", "reading", "referring")
VARIANTS = {
    "existence": {"random", "popular", "adversarial"},
    "count": {"shape", "color", "all"},
    "relation": {"largest", "place"},
    "premise": {"absent", "several", "blank"},
    "follow_up": {"it", "another"},
}
MORE_VARIANTS = {"existence": {"foreign"}, "count": {"name"}}  # of other wordings


@pytest.mark.parametrize("wording", get_args(Wording))
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_answers_are_true(kind, wording):
    """Each question has one correct answer, which is the given one."""
    asked = []
    for number in range(60):
        scene = draw_scene("test", number)
        question = ask(scene, kind, np.random.default_rng(number), wording)
        if question is not None:
            asked.append(question.variant)
            assert true_answers(scene, question) == [question.answer], (number, question)
    assert len(asked) > 15
    assert VARIANTS.get(kind, {""}) <= {*asked} <= VARIANTS.get(kind, {""}) | MORE_VARIANTS.get(kind, set())


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


def answers_of(row):
    return ["".join(block.get("text", "") for block in message["content"]) for message in row["messages"][1::2]]


LOOKUP_ANSWERS = {*COLORS, *SHAPES, *SIZES, *CHARACTERS}
BOX = re.compile(r": \[")


def is_lookup(answer):
    return answer in LOOKUP_ANSWERS


def test_the_first_dialogues_about_images_are_lookups():
    rows = DialogueRows("train", scenes=20, lookups=10)
    lookups = [all(map(is_lookup, answers_of(rows[index]))) for index in range(20)]
    assert all(lookups[:10])
    assert not any(lookups[10:])


def answers_about(group, number, **settings):
    rows = SymbolicDialogues("train", number, groups=[group], **settings)
    return [answer for index in range(number) for answer in answers_of(rows[index]) if rows[index]["objects"]]


def test_each_group_asks_its_own_kinds_of_questions():
    assert all(map(is_lookup, answers_about("lookups", 20)))
    assert all(answer in COLORS or BOX.search(answer) for answer in answers_about("places", 20))
    assert all(answer.isdecimal() or answer in ("yes", "no") for answer in answers_about("counts", 20))
    premises = answers_about("premises", 60)
    assert sum(answer.startswith("There ") for answer in premises) > 15
    assert any(answer.startswith("I only know") for answer in premises)
    everything = answers_about("everything", 60)
    for kind in (is_lookup, BOX.search, str.isdecimal, ("yes", "no").__contains__):
        assert any(map(kind, everything))


CAPTIONS = ("Describe the picture.", "What does the picture show?", "What do you see?")  # where nothing else fits


def test_a_dialogue_can_be_worded_plainly():
    asked = [
        message["content"][-1]["text"]
        for index in range(40)
        for message in SymbolicDialogues("train", 40, groups=["lookups"], wording="plain")[index]["messages"][::2]
    ]
    assert all(
        text.startswith(("What color is", "What shape is", "How big is", "Which character is", *CAPTIONS))
        for text in asked
    )


@pytest.mark.parametrize(
    "kind", ["existence", "count", "color", "shape", "size", "reading", "referring", "description"]
)
def test_a_kind_of_question_has_many_wordings(kind):
    assert count_wordings(kind) >= 40
    scene = next(scene for scene in (draw_scene("train", number) for number in range(99)) if ask(scene, kind, rng(0)))
    asked = {question.text for question in (ask(scene, kind, rng(seed)) for seed in range(300)) if question}
    assert len(asked) > 100
    assert sum(text == text.lower() for text in asked) > 10
    assert sum("?" not in text for text in asked) > 30
    unknown = {question.text for question in (ask(scene, kind, rng(seed), "unknown") for seed in range(50)) if question}
    assert not unknown & asked


def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("group", "more"), [("counts", True), ("lookups", False)])
def test_counting_scenes_can_have_many_objects_that_are_alike(group, more):
    """Lookups keep objects that differ."""

    def scenes_of_many(alike):
        rows = SymbolicDialogues("train", 60, groups=[group], alike=alike)
        colors = [Counter(thing.color for thing in rows[index]["objects"]) for index in range(60)]
        return sum(max(counts.values(), default=0) > 3 for counts in colors)

    assert (scenes_of_many(alike=True) > scenes_of_many(alike=False) + 5) == more


def test_groups_alternate():
    rows = SymbolicDialogues("train", 256, groups=["lookups", "places"])
    for first, lookups in ((0, True), (64, False), (128, True), (192, False)):
        answers = [answer for index in range(first, first + 64, 8) for answer in answers_of(rows[index])]
        assert (sum(map(is_lookup, answers)) > 0.5 * len(answers)) == lookups


@pytest.mark.parametrize("groups", [[], ["lookups", "colors"]])
def test_unknown_groups_are_refused(groups):
    with pytest.raises(ValueError, match=r"groups must be some of everything, .*, got \["):
        SymbolicDialogues("train", 2, groups=groups)


def test_symbols_are_the_objects_of_the_scene():
    """In another order, from the first scene on; a few scenes are emptied."""
    rows = SymbolicDialogues("train", 100, first=7)
    empty = 0
    for number, row in enumerate(map(rows.__getitem__, range(100)), 7):
        shown = {thing.box for thing in draw_scene("train", number).objects}
        empty += not row["objects"]
        assert {thing.box for thing in row["objects"]} in (shown, set())
        assert row["messages"][0]["content"][0] == {"type": "image"}
    assert 0 < empty < 10


def test_recolored_scenes_have_held_out_combinations():
    """Boxes and the number of colors stay the same."""
    plain, recolored = (SymbolicDialogues("train", 40, recolored=other) for other in (False, True))
    pairs = [(plain[index], recolored[index]) for index in range(40)]
    pairs = [pair for pair in pairs if all(row["objects"] for row in pair)]  # without those that are emptied
    assert {(thing.color, thing.shape) for _, row in pairs for thing in row["objects"]} & HELD_OUT
    for one, other in pairs:
        assert sorted(thing.box for thing in one["objects"]) == sorted(thing.box for thing in other["objects"])
        assert len({thing.color for thing in one["objects"]}) == len({thing.color for thing in other["objects"]})


def test_questions_for_rewards_say_what_is_expected():
    """A right answer of the world earns every reward that scores its row; kinds of questions are those asked for."""
    rows = QuestionRows("train", 12, kinds=("count", "existence", "referring", "description"))
    seen = set()
    for index in range(len(rows)):
        row = rows[index]
        assert row == rows[index]
        assert [block["type"] for block in row["prompt"][-1]["content"]][:2] == ["image", "text"]
        (name,) = (name for name in row if name.startswith("expected_"))
        seen.add(name)
        expected = row[name]
        answers = {"expected_existence": "yes" if expected is True else "no"}
        if name == "expected_boxes":
            answers[name] = format_object("star", expected[0])
        for reward in REWARDS.values():
            if reward.column == name:
                (earned,) = reward(completions=[answers.get(name, str(expected))], **{name: [expected]})
                assert earned == pytest.approx(1.0, abs=0.05)  # boxes are written with three decimals
    assert len(seen) == 4
    with pytest.raises(ValueError, match="kinds must be some of caption, existence"):
        QuestionRows("train", 1, kinds=("counting",))
