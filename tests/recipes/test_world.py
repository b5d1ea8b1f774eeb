"""The micro world: what is said about a scene is true of its picture."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import LlamaForCausalLM

from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.recipes.micro import FAMILIES, HELD_OUT, ToldRows, ask, ask_many, draw_scene, write_rows
from lyrics.recipes.micro.common.initialization import all_coordinates, compose_coordinates
from lyrics.recipes.micro.configs import build_micro_bert_tokenizer, build_micro_text_tokenizer, language_model_config
from lyrics.recipes.micro.evaluate import KINDS, draw_cases
from lyrics.recipes.micro.language_model.symbolic_answers import answer_told
from lyrics.recipes.micro.language_model.symbolic_inputs import ToldCollator, ToldLanguageModel, find_word
from lyrics.recipes.micro.language_model.train import clear_residual_stream, compose_names
from lyrics.recipes.micro.world.datasets import DialogueRows
from lyrics.recipes.micro.world.scenes import COLORS, SHAPES, SIZES

NUMBERS = range(40)


@pytest.fixture
def tokenizer():
    return build_micro_text_tokenizer()


@pytest.fixture
def language_model(tokenizer):
    torch.manual_seed(0)
    model = ToldLanguageModel(language_model_config(tokenizer)).eval()
    compose_names(model, tokenizer)
    return model


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
    """Masks do not meet, boxes fit them tightly, and most pixels of an object have its color."""
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


def test_no_count_is_the_one_to_guess():
    """Of most colors and shapes in a scene there is one, or none."""
    questions = [ask(draw_scene("test", number), "count", np.random.default_rng(number)) for number in range(200)]
    for kind in ("color", "shape"):
        answers = Counter(question.answer for question in questions if question.variant == kind)
        assert "0" in answers
        assert max(answers.values()) < 0.45 * answers.total()


def test_rows_are_what_the_trainers_read(tmp_path):
    write_rows(tmp_path / "rows", "train", 4)
    rows = load_from_disk(tmp_path / "rows")
    for row in rows:
        conversation = read_conversation({"messages": row["messages"], "images": [row["image"]]})
        assert conversation.messages[0]["content"][0]["type"] == "image"
    questions = ask_many(draw_scene("train", 0), 8, np.random.default_rng(0))
    assert len({(question.text, question.box) for question in questions}) == len(questions) > 2


def test_pictures_are_not_asked_about_for_what_they_never_show():
    """The answer would always be no. What is told is asked about all the same, since it comes in all colors."""
    combinations = "|".join(f"{color} {shape}" for color, shape in HELD_OUT)

    def named(rows):
        texts = [str(rows[index]["messages"]) for index in range(len(rows))]
        return sum(len(re.findall(combinations, text)) for text in texts)

    assert named(DialogueRows("train", scenes=200)) == 0
    assert named(ToldRows("train", 200)) > 0


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


def test_names_that_share_a_word_begin_alike(language_model, tokenizer):
    names = ["small red ring", "red ring", "red objects", "rings", "large pink cross"]
    ids = tokenizer.convert_tokens_to_ids(names)
    for name, token in zip(names, ids, strict=True):
        assert token in tokenizer(f"The {name}?", add_special_tokens=False)["input_ids"]
    one, *others, strange = language_model.get_input_embeddings().weight[ids]
    likeness = [torch.cosine_similarity(one, each, dim=0).item() for each in (*others, strange)]
    assert min(likeness[:3]) > 0.35 > 0.3 > abs(likeness[3])
    assert 0.6 < one.std() / language_model.config.initializer_range < 1.6  # as of any other word


def test_layers_begin_by_adding_nothing(language_model):
    embedded = torch.randn(2, 5, language_model.config.hidden_size)
    clear_residual_stream(language_model)
    seen = language_model.model(inputs_embeds=embedded).last_hidden_state
    torch.testing.assert_close(seen, language_model.model.norm(embedded))


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


LOOKUPS = ("What color", "What shape", "Which character")
PLACES = ("Where is", "Find the")
COUNTS = ("How many", "Is there", "Do you see")


def questions_of(row):
    return [message["content"][-1]["text"] for message in row["messages"][::2]]


def ask_about(group, number, **settings):
    return [
        text
        for index in range(number)
        for text in questions_of(ToldRows("train", 20, groups=[group], **settings)[index])
    ]


def test_groups_of_rows_ask_about_what_they_are_for():
    assert all(text.startswith(LOOKUPS) for text in ask_about("lookups", 20))
    assert all(text.startswith((*PLACES, "What color")) for text in ask_about("places", 20))
    assert all(text.startswith(COUNTS) for text in ask_about("counts", 20))
    for beginnings in (PLACES, LOOKUPS, ("How many",), ("Is the",)):
        assert any(text.startswith(beginnings) for text in ask_about("everything", 20))


@pytest.mark.parametrize(("group", "more"), [("counts", True), ("lookups", False)])
def test_how_many_is_asked_where_many_are_alike(group, more):
    """In half of those scenes; what looks up needs objects that differ."""

    def scenes_of_many(alike):
        rows = ToldRows("train", 60, groups=[group], alike=alike)
        colors = [Counter(thing.color for thing in rows[index]["objects"]) for index in range(60)]
        return sum(max(counts.values()) > 3 for counts in colors)

    assert (scenes_of_many(alike=True) > scenes_of_many(alike=False) + 5) == more


def test_groups_follow_each_other():
    rows = ToldRows("train", 256, groups=["lookups", "places"])
    for first, beginnings in ((0, LOOKUPS), (64, PLACES), (128, LOOKUPS), (192, PLACES)):
        texts = [text for index in range(first, first + 64, 8) for text in questions_of(rows[index])]
        assert sum(text.startswith(beginnings) for text in texts) > 0.5 * len(texts)


@pytest.mark.parametrize("groups", [[], ["lookups", "colors"]])
def test_groups_that_there_are_not(groups):
    with pytest.raises(ValueError, match=r"groups must be some of everything, .*, got \["):
        ToldRows("train", 2, groups=groups)


def test_rows_of_later_scenes_are_told_what_they_show():
    """In an order of its own, with the same answers."""
    rows = ToldRows("train", 3, first=7)
    for number, row in enumerate(map(rows.__getitem__, range(3)), 7):
        shown = {thing.box for thing in draw_scene("train", number).objects}
        assert {thing.box for thing in row["objects"]} == shown
        assert row["messages"][0]["content"][0] == {"type": "image"}


def test_what_is_told_has_combinations_that_no_picture_shows():
    """The objects stay where they are, and as many colors as there were."""
    plain, recolored = (ToldRows("train", 40, recolored=other) for other in (False, True))
    told = [(plain[index], recolored[index]) for index in range(40)]
    assert {(thing.color, thing.shape) for _, row in told for thing in row["objects"]} & HELD_OUT
    for one, other in told:
        assert sorted(thing.box for thing in one["objects"]) == sorted(thing.box for thing in other["objects"])
        assert len({thing.color for thing in one["objects"]}) == len({thing.color for thing in other["objects"]})


def test_an_object_is_told_as_its_words_and_its_box(language_model, tokenizer):
    rows = [ToldRows("train", 2)[index] for index in range(2)]
    batch = ToldCollator(build_micro_text_tokenizer())(rows)
    table = language_model.get_input_embeddings().weight.data
    table[tokenizer.pad_token_id] = 1.0  # whatever it is, an object without a character does not have it
    for index, row in enumerate(rows):
        assert (batch["input_ids"][index] < 0).sum() == batch["words"].shape[1]
        thing = row["objects"][0]
        said = [word for word in (thing.size, thing.color, thing.shape, thing.character) if word]
        words = table[[find_word(tokenizer, word) for word in said]].sum(dim=0)
        told = language_model.tell(batch["words"], batch["boxes"])[index]
        torch.testing.assert_close(told[8], words)  # the first eight places are visual queries
        assert (told[:8] == 0).all()
        assert (told[8 + len(row["objects"]) :] == 0).all()
    language_model.loudness = 1.0
    moved = language_model.tell(batch["words"], batch["boxes"]) - language_model.tell(
        batch["words"], batch["boxes"] * 0.9
    )
    assert (moved[:, 8].norm(dim=-1) > 0.1 * words.norm()).all()
    assert (moved[:, :8] == 0).all()


def test_answered_boxes_are_hinted_at_where_they_are_named_and_where_they_are_due(language_model, tokenizer):
    """In rows by chance, and only while the model learns."""
    rows = ToldRows("train", 64, groups=["everything"])
    batch = ToldCollator(build_micro_text_tokenizer())([rows[index] for index in range(24)])
    ids, hints, hinted = batch["input_ids"], batch["hints"], batch["hinted"]
    answers = [
        (row, message["content"][0]["text"])
        for row in range(24)
        for message in rows[row]["messages"][1::2]
        if "[" in message["content"][0]["text"]
    ]
    named, due = (hints == 1).nonzero().tolist(), (hints == 2).nonzero().tolist()
    assert (len(named), len(due)) == (len(answers), 4 * len(answers))
    for (row, answer), (there, token) in zip(answers, named, strict=True):
        name, box = answer.split(": ")
        assert (row, name) == (there, tokenizer.decode([ids[row, token]]))
        torch.testing.assert_close(hinted[row, token], torch.tensor(json.loads(box)))
    said = [json.loads(box) for _, answer in answers for box in [answer.split(": ")[1]]]
    for number, (row, token) in enumerate(due):
        box, place = said[number // 4], number % 4
        assert tokenizer.decode(ids[row, token + 1 : token + 3]) == f"{box[place]:.3f}"
        torch.testing.assert_close(hinted[row, token], torch.tensor(box))
    language_model.hints = True
    told = language_model(**batch).loss
    assert told == language_model(**batch | {"hinted": 1 - hinted}).loss
    language_model.train()
    torch.manual_seed(0)
    told = language_model(**batch).loss
    torch.manual_seed(0)
    assert told != language_model(**batch | {"hinted": 1 - hinted}).loss


def test_what_is_told_is_answered_in_a_batch_as_alone(language_model, tokenizer):
    plain = LlamaForCausalLM(language_model.config).eval()
    weights = language_model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    collator, cases = ToldCollator(build_micro_text_tokenizer()), draw_cases(1)
    alone, together = (answer_told(plain, language_model, collator, cases, batch_size=size) for size in (1, 8))
    assert [outcome.answer for outcome in alone] == [outcome.answer for outcome in together]
    assert {outcome.case.question.kind for outcome in alone} == set(KINDS)


def test_a_coordinate_begins_like_the_boxes_that_have_it(language_model, tokenizer):
    boxes = all_coordinates()[:, None].expand(-1, 4)
    table = language_model.get_input_embeddings().weight.data
    compose_coordinates(table, tokenizer, language_model.tell_boxes(boxes))
    coordinates = table[tokenizer.convert_tokens_to_ids([f"{value / 100:.2f}" for value in range(101)])]
    for corner in range(4):  # whatever the others are
        boxes = torch.rand(1000, 4)
        boxes[:, corner] = 0.3
        scores = (language_model.tell_boxes(boxes) @ coordinates.mT).mean(dim=0)
        assert 28 < scores.argmax() < 32


def test_labels_of_what_is_told_are_the_answers():
    row = ToldRows("train", 1, groups=["lookups"])[0]
    tokenizer = build_micro_text_tokenizer()
    collate = ToldCollator(tokenizer)
    labels = collate([row])["labels"][0]
    said = [message["content"][0]["text"] for message in row["messages"][1::2]]
    assert tokenizer.decode(labels[labels >= 0]) == "".join(f" {answer}</s>" for answer in said)
