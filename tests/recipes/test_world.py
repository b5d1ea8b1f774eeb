"""The micro world: what is said about a scene is true of its picture."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import LlamaForCausalLM

from lyrics.recipes.micro import FAMILIES, HELD_OUT, WordRows, ask, ask_many, draw_scene, write_rows
from lyrics.recipes.micro.coordinates import compose_coordinates
from lyrics.recipes.micro.language import compose_embeddings
from lyrics.recipes.micro.parts import build_micro_bert_tokenizer, build_micro_text_tokenizer, language_model_config
from lyrics.recipes.micro.rows import DialogueRows
from lyrics.recipes.micro.world import COLORS, SHAPES, SIZES
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
    assert 2 <= len(scene.objects) <= 9
    assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1
    for thing in scene.objects:
        x1, y1, x2, y2 = (round(value * 128) for value in thing.box)
        inside = thing.mask[y1:y2, x1:x2]
        assert inside.sum() == thing.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        distances = np.stack([np.abs(pixels[thing.mask] - rgb).sum(axis=1) for rgb in COLORS.values()])
        assert list(COLORS)[np.bincount(distances.argmin(axis=0)).argmax()] == thing.color


def middle(thing):
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def described(scene, words):
    """Objects that a phrase such as `the small red circle` fits."""
    known = {*words.split()} & {*COLORS, *SHAPES, *SIZES}
    return [thing for thing in scene.objects if known <= {thing.color, thing.shape, thing.size}]


def true_answers(scene, question):
    """The right answers, worked out from the words of the question alone."""
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
    """There is one right answer to each question, and it is the one that is given."""
    asked = []
    for number in range(60):
        scene = draw_scene("test", number)
        question = ask(scene, kind, np.random.default_rng(number))
        if question is not None:
            asked.append(question.variant)
            assert true_answers(scene, question) == [question.answer], (number, question)
    assert len(asked) > 15
    assert set(asked) == VARIANTS.get(kind, {""})


def test_rows_are_what_the_trainers_read(tmp_path):
    write_rows(tmp_path / "rows", "train", 4)
    rows = load_from_disk(tmp_path / "rows")
    for row in rows:
        conversation = read_conversation({"messages": row["messages"], "images": [row["image"]]})
        assert conversation.messages[0]["content"][0]["type"] == "image"
    told = [read_conversation(row).messages[0]["content"][0]["text"] for row in WordRows("train", 80)]
    assert sum("[" in text for text in told) == 64  # the first group is told with boxes, and the next ones without
    questions = ask_many(draw_scene("train", 0), 8, np.random.default_rng(0))
    assert len({(question.text, question.box) for question in questions}) == len(questions) > 2


def test_a_scene_that_comes_again_is_asked_something_else(tmp_path):
    """With the key and the picture that the stored rows, and so the store, have for it."""
    rows = DialogueRows("train", scenes=3, first=5, dialogues=2)
    write_rows(tmp_path / "rows", "train", 3, first=5)
    for index, stored in enumerate(load_from_disk(tmp_path / "rows")):
        row, again = rows[index], rows[index + 3]
        assert row["key"] == again["key"] == stored["key"]
        assert row["image"].tobytes() == again["image"].tobytes() == stored["image"].tobytes()
        assert row["messages"] != again["messages"]
    with pytest.raises(IndexError):
        rows[6]


def test_every_scene_comes_as_often_as_it_is_to_be_talked_about():
    """In groups, which are drawn once; the last is smaller."""
    rows = DialogueRows("train", scenes=66, dialogues=2)
    keys = [rows[index]["key"] for index in range(len(rows))]
    assert set(Counter(keys).values()) == {2}
    assert keys[:64] == keys[64:128]
    assert keys[128:130] == keys[130:]


def test_the_first_rows_about_pictures_only_look_up():
    rows = DialogueRows("train", scenes=20, lookups=10)
    asked = [rows[index]["messages"][0]["content"][0]["text"] for index in range(20)]
    looking_up = [text.startswith(("What color", "What shape", "Which character")) for text in asked]
    assert all(looking_up[:10])
    assert not all(looking_up[10:])


def test_words_of_objects_that_share_something_begin_alike():
    tokenizer = build_micro_text_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(language_model_config(tokenizer))
    compose_embeddings(model, tokenizer)
    words = ["large-red-circle-A", "large-red-circle-X", "medium-red-circle-A", "small-pink-cross"]
    one, other, another, strange = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(words)]
    likeness = [torch.cosine_similarity(one, each, dim=0).item() for each in (other, another, strange)]
    assert min(likeness[:2]) > 0.5 > 0.4 > abs(likeness[2])
    assert 0.6 < one.std() / model.config.initializer_range < 1.6  # as of any other word


def test_coordinates_begin_as_near_as_what_they_say():
    tokenizer = build_micro_bert_tokenizer()
    torch.manual_seed(0)
    table = torch.randn(len(tokenizer), 96)
    before = table.clone()
    compose_coordinates(table, tokenizer)
    changed = (table != before).any(dim=1).nonzero().flatten().tolist()
    coordinates = tokenizer.convert_tokens_to_ids([f"{value / 100:.2f}" for value in range(101)])
    assert changed == sorted(coordinates)
    likeness = torch.cosine_similarity(table[coordinates[30]], table[coordinates], dim=1)
    assert likeness[30] > likeness[31] > likeness[32] > 0.5 > likeness[50].abs()
    assert 0.7 < table[coordinates].std() < 1.3  # as of any other word


def test_the_first_rows_in_words_only_look_up():
    """Their answers are told word for word."""
    for row in map(WordRows("train", 20, lookups=10).__getitem__, range(10)):
        told, *answers = [block["text"] for message in row["messages"] for block in message["content"]]
        assert all(answer in told for answer in answers[1::2])
