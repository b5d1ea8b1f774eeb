"""Mixtures: rows as a function of seed, epoch and position; shares, packing, tasks, contamination, recipes."""

import json
import os
import pickle
import re
from collections import Counter

import datasets
import pytest

from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.datasets_lyrics.mixtures.recipe import SHIPPED, read_mixture
from lyrics.datasets_lyrics.mixtures.vocabulary import Vocabulary
from lyrics.datasets_lyrics.open_data import open_rows, open_source
from lyrics.utils.seeding import generator

from ..catalog.data_sets import coco, dump, put, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def mix(folder, text):
    path = folder / "mixture.yaml"
    path.write_text(text)
    return open_rows(path, image_root=folder)


def questions(folder, pictures, each, name="vqav2"):
    """VQAv2 with some questions about each of some images."""
    root = folder / name
    put(root, *(coco(number) for number in range(1, pictures + 1)))
    ids = [(number, number * 100 + place) for place in range(each) for number in range(1, pictures + 1)]
    asked = [{"question_id": key, "image_id": number, "question": f"What is {key}?"} for number, key in ids]
    notes = [{"question_id": key, "answers": [{"answer": str(key)}]} for _, key in ids]
    dump(root / "v2_OpenEnded_mscoco_train2014_questions.json", {"questions": asked})
    dump(root / "v2_mscoco_train2014_annotations.json", {"annotations": notes})
    return root


def ids(mixture, epoch=0, seed=0):
    return [mixture.row_at(seed, epoch, position)["id"] for position in range(len(mixture))]


def test_an_epoch_uses_every_row_once_in_its_own_order(tmp_path):
    questions(tmp_path, 5, 2)
    mixture = mix(tmp_path, "data: [vqav2]")
    orders = [ids(mixture, epoch) for epoch in range(3)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len(set(orders[0])) == 10
    assert len(set(map(tuple, orders))) == 3
    assert ids(mixture, 0, seed=1) != orders[0]


def test_rows_are_a_function_of_seed_epoch_and_position(tmp_path):
    """In another process, in any order, and after a restart."""
    questions(tmp_path, 4, 3)
    write("refcoco", tmp_path)
    text = "data: [{data: vqav2, pack: 2}, {data: refcoco, tasks: [locate, describe_region]}]\nrows_per_epoch: 9"
    mixture = mix(tmp_path, text)
    rows = [mixture.row_at(3, 5, position) for position in range(9)]
    again = pickle.loads(pickle.dumps(mix(tmp_path, text)))
    assert [again.row_at(3, 5, position) for position in reversed(range(9))] == rows[::-1]


def test_without_repetition_across_epochs(tmp_path):
    """A data set of which an epoch takes a part goes on with the rest in the next one."""
    questions(tmp_path, 6, 2)
    mixture = mix(tmp_path, "data: [vqav2]\nrows_per_epoch: 4")
    seen = [key for epoch in range(3) for key in ids(mixture, epoch)]
    assert len(set(seen)) == 12


def test_shares_follow_weights_and_temperature(tmp_path):
    questions(tmp_path, 8, 2, "large")
    questions(tmp_path, 4, 1, "small")
    entries = "data: [{data: vqav2:large}, {data: vqav2/train:small, weight: W}]\nrows_per_epoch: 60\ntemperature: T"
    for weight, temperature, expected in ((1, 1, [48, 12]), (2, 2, [30, 30]), (0, 1, [60, 0]), (4, 1, [30, 30])):
        mixture = mix(tmp_path, entries.replace("W", str(weight)).replace("T", str(temperature)))
        assert mixture.quotas == expected
        counts = Counter(mixture[position]["dataset"] for position in range(60))
        assert [counts[name] for name in mixture.names] == expected


def test_caps_take_a_part(tmp_path):
    questions(tmp_path, 8, 2)
    mixture = mix(tmp_path, "data: [{data: vqav2, cap: 5}]")
    assert len(set(ids(mixture))) == len(mixture) == 5


def test_questions_about_one_picture_share_a_conversation(tmp_path):
    questions(tmp_path, 3, 5)
    mixture = mix(tmp_path, "data: [{data: vqav2, pack: 2}]")
    assert len(mixture) == 9  # 2 + 2 + 1 of each image
    seen = []
    for position in range(9):
        row = mixture[position]
        conversation = read_conversation(row)
        assert len(conversation.pictures) == 1
        numbers = row["id"].split("+")
        assert {number[0] for number in numbers} == {row["images"][0][-5]}
        answers = [m["content"][0]["text"] for m in conversation.messages if m["role"] == "assistant"]
        assert answers == numbers
        assert [block["type"] for block in conversation.messages[0]["content"]].count("image") == 1
        seen += numbers
    assert len(set(seen)) == 15


def test_rows_without_a_picture_are_not_packed(tmp_path):
    write("scienceqa", tmp_path)
    problems = json.loads((tmp_path / "scienceqa/problems.json").read_text())
    problems["12"]["image"] = problems["14"]["image"] = None
    problems["14"]["answer"] = 0
    dump(tmp_path / "scienceqa/problems.json", problems)
    assert len(mix(tmp_path, "data: [{data: scienceqa, pack: 4}]")) == 3


def test_wordings_and_choices_vary_and_stay_right(tmp_path):
    write("aokvqa", tmp_path)
    mixture = mix(tmp_path, "data: [aokvqa]\nrows_per_epoch: 2")
    texts = set()
    for epoch in range(40):
        for position in range(2):
            question, answer = (
                message["content"][-1]["text"] for message in mixture.row_at(0, epoch, position)["messages"]
            )
            if "\nA. " in question:
                line = next(line for line in question.splitlines() if line.startswith(f"{answer}. "))
                assert line == f"{answer}. c"
                texts.add(question)
    assert len(texts) > 15


def test_existence_and_counts(tmp_path):
    """Yes and no about equally often, and never wrong."""
    root = write("coco_detection", tmp_path)
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["categories"] += [{"id": 1, "name": "cat"}]
    content["images"].append({**content["images"][0], "id": 8})
    content["annotations"] += [{"image_id": 8, "category_id": 1, "bbox": [0, 0, 9, 9]}] * 2
    dump(path, content)
    there = {"7": {"dog": 1}, "8": {"cat": 2}}
    for negatives in ("random", "popular", "adversarial"):
        text = f"data: [{{data: coco_detection, tasks: [existence, count], negatives: {negatives}}}]"
        mixture = mix(tmp_path, text)
        answers = Counter()
        for epoch in range(60):
            for position in range(2):
                row = mixture.row_at(0, epoch, position)
                question, answer = (message["content"][-1]["text"] for message in row["messages"])
                name = next(name for name in ("dog", "cat") if name in question)
                count = there[row["id"]].get(name, 0)
                assert answer in (str(count), "Yes" if count else "No")
                answers[answer] += 1
        assert 0.3 < answers["Yes"] / (answers["Yes"] + answers["No"]) < 0.7


def test_adversarial_names_are_those_that_occur_together():
    vocabulary = Vocabulary([["fork", "knife"]] * 9 + [["whale"]] + [["fork"]])
    random = generator(0, 0, "", "test")
    drawn = Counter(vocabulary.draw_absent({"fork"}, "adversarial", random) for _ in range(200))
    assert drawn["knife"] > 190
    assert vocabulary.draw_absent({"fork", "knife", "whale"}, "random", random) is None


@pytest.mark.parametrize("style", ["bare", "labeled", "thousandths"])
def test_styles_of_boxes(tmp_path, style):
    write("refcoco", tmp_path)
    answer = mix(tmp_path, f"data: [{{data: refcoco, boxes: {style}}}]")[0]["messages"][1]["content"]
    if style == "thousandths":
        assert "".join(block["text"] for block in answer).endswith("(100,100),(600,600)")
    else:
        (block,) = answer
        assert block["box"] == [0.1, 0.1, 0.6, 0.6]
        assert ("label" in block) == (style == "labeled")


def test_pictures_of_evaluation_splits_are_left_out(tmp_path):
    """RefCOCO's train2014 names images that COCO 2017 names in another way; copies are found by what they show."""
    questions(tmp_path, 9, 1)
    root = write("refcoco", tmp_path)
    assert len(mix(tmp_path, "data: [vqav2]\nexclude: [refcoco]")) == 8  # without image 7
    (root / "train2014").rename(root / "train2017")
    (root / "train2017/COCO_train2014_000000000007.jpg").rename(root / "train2017/000000000007.jpg")
    mixture = mix(tmp_path, "data: [vqav2]\nexclude: [refcoco]")
    assert not [one for one in ids(mixture) if one.startswith("7")]
    assert "1 left out for evaluation" in mixture.describe()


def test_a_mixture_is_refined_picture_by_picture(tmp_path):
    """An image that two data sets share through a link is there once; those left out of training are not there."""
    questions(tmp_path, 4, 2)
    write("table", tmp_path)
    write("refcoco", tmp_path)  # shows image 7
    put(tmp_path / "vqav2", coco(7))
    os.symlink(tmp_path / "vqav2/train2014", tmp_path / "aside")
    (tmp_path / "table/more.csv").write_text("file,question,answer\nlinked/COCO_train2014_000000000001.jpg,What?,1\n")
    os.symlink("../aside", tmp_path / "table/linked")
    (tmp_path / "mixture.yaml").write_text("data: [vqav2, 'table:table/more.csv']\nexclude: [refcoco]")
    source = open_source(tmp_path / "mixture.yaml", root=tmp_path)
    items = list(source.items(0))
    assert [item.key for item in items] == [f"vqav2/{coco(number)}" for number in (1, 2, 3, 4)]
    assert [item.image for item in items] == [tmp_path / "vqav2" / coco(number) for number in (1, 2, 3, 4)]
    assert source.total == 4
    with pytest.raises(ValueError, match="has no columns"):
        open_source(tmp_path / "mixture.yaml", root=tmp_path, image="image")


def test_copies_are_left_out(tmp_path):
    from lyrics.datasets_lyrics.toy_data import ShapeRows

    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    for number in range(3):
        ShapeRows(3)[number]["image"].save(tmp_path / f"mine/{number}.png")
    ShapeRows(3)[1]["image"].resize((150, 150)).save(tmp_path / "theirs/other.jpg")
    (tmp_path / "mine/a.csv").write_text("file,question,answer\n" + "".join(f"{n}.png,What?,{n}\n" for n in range(3)))
    (tmp_path / "theirs/a.csv").write_text("file,question,answer\nother.jpg,What?,1\n")
    text = "data: ['table:mine']\nexclude: ['table:theirs']\nperceptual: "
    assert len(mix(tmp_path, text + "false")) == 3
    assert sorted(ids(mix(tmp_path, text + "true"))) == ["0.png/What?", "2.png/What?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not YAML"),
        ("7", "the recipe must be a mapping"),
        ("data: []", "`data` must be a list"),
        ("data: [vqav3]", "There is no data set 'vqav3'. Did you mean vqav2"),
        ("data: [vqav2]\ncolour: red", "the recipe has the unknown key 'colour'; known are data, root"),
        ("data: [{data: vqav2, wait: 1}]", "a data set has the unknown key 'wait'"),
        ("data: [{weight: 1}]", "a data set has no `data`"),
        ("data: [vqav2, vqav2]", "vqav2 is there twice"),
        ("data: [{data: vqav2, weight: -1}]", "`weight` must be a number from 0 on, got -1"),
        ("data: [{data: vqav2, cap: many}]", "`cap` must be a whole number from 1 on, got 'many'"),
        ("data: [{data: vqav2, cap: 2.5}]", "`cap` must be a whole number from 1 on, got 2.5"),
        ("data: [{data: vqav2, weight: .nan}]", "`weight` must be a number from 0 on, got nan"),
        ("data: [vqav2]\nrows_per_epoch: true", "`rows_per_epoch` must be a whole number from 1 on, got True"),
        ("data: [vqav2]\nroot: [a]", "`root` must be a folder, got ['a']"),
        ("data: [vqav2]\nperceptual: maybe", "`perceptual` must be true or false, got 'maybe'"),
        ("data: [vqav2]\nexclude: refcco/val", "There is no data set 'refcco'. Did you mean refcoco"),
        ("data: [{data: vqav2, boxes: round}]", "`boxes` must be one of bare, labeled, thousandths, got 'round'"),
        ("data: [vqav2]\ntemperature: 0.5", "`temperature` must be a number from 1 on, got 0.5"),
        ("data: [vqav2]\nrows_per_epoch: 0", "`rows_per_epoch` must be a whole number from 1 on, got 0"),
        ("data: [vqav2]\nprompts: {captoin: [a]}", "`prompts` has the unknown key 'captoin'"),
        ("data: [vqav2]\nprompts: {locate: [Where]}", "`prompts` of locate: 'Where' lacks {name}"),
        ("data: [{data: vqav2, weight: 0}]", "No data set of the mixture has a row with a weight above 0"),
        ("data: [{data: vqav2, tasks: [sing]}]", "There is no task 'sing'"),
        ("data: [{data: vqav2, tasks: [locate]}]", "has no regions, which its task needs"),
        ("data: [{data: vqav2, tasks: [count]}]", "needs all objects of an image"),
        ("data: [vqav2]\nexclude: [vqav2]", "has no row whose image is not in an evaluation split"),
    ],
)
def test_wrong_recipes_are_told(tmp_path, text, message):
    questions(tmp_path, 1, 1)
    with pytest.raises(ValueError, match=re.escape(message)):
        mix(tmp_path, text)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_readable(path):
    assert len(read_mixture(path).shares) > 3
    with pytest.raises(ValueError, match="the package has"):
        open_rows("mixture:none")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        open_rows(f"mixture:{path.stem}", image_root="nowhere")
