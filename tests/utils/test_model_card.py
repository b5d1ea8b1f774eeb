"""Model cards: metadata that the Hub takes, cards of persons that stay, facts without paths."""

import json
import shutil

import pytest
from huggingface_hub import EvalResult, ModelCard

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.trainers.common.run_facts import name_data
from lyrics.utils.model_card import (
    BaseModel,
    CardFacts,
    DataName,
    TrainingFacts,
    add_results,
    find_hub_id,
    is_hub_id,
    write_card,
)
from lyrics.utils.model_card.metadata import build_metadata, choose_license

from ..cards import check_card, run_quick_start

PUBLISHED = "IDEA-CCNL/Ziya-Visual-Lyrics-14B"
LOG = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 1.5, "eval_runtime": 3.0, "eval_word_accuracy": 0.25}]


@pytest.fixture
def folder(tmp_path):
    """Settings of the shipped model, without weights and card."""
    folder = tmp_path / "mine"
    shutil.copytree(MICRO_CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    return folder


def train(**changes):
    facts = {"data": [DataName("chats.jsonl"), DataName("me/chats", "me/chats")], "rows": 5, "log": LOG, "steps": 2}
    facts |= {"evaluation_data": [DataName("held.jsonl")], "settings": {"learning_rate": 1e-4, "train": []}}
    return TrainingFacts("instruction tuning", **facts | changes)


def test_metadata_and_results_round_trip(folder):
    bases = [BaseModel.find(PUBLISHED)]
    facts = CardFacts("mine", bases, "finetune", "It was tuned.", training=train(), language=["en", "zh"])
    assert write_card(folder, facts)
    expected = {"base_model": PUBLISHED, "base_model_relation": "finetune", "datasets": ["me/chats"]}
    card = check_card(folder, **expected, license="gpl-3.0", language=["en", "zh"], library_name="transformers")
    assert card.data.pipeline_tag == "image-text-to-text"
    results = [(one.dataset_name, one.metric_type, one.metric_value) for one in card.data.eval_results]
    assert results == [("held.jsonl", "loss", 1.5), ("held.jsonl", "word_accuracy", 0.25)]
    for text in (
        "| held.jsonl | word accuracy | 0.25 |",
        "| learning_rate | 0.0001 |",
        "`chats.jsonl`, [me/chats](https://huggingface.co/datasets/me/chats) (5 rows)",
        "Measured by the trainer with the weights of step 1.",
        "follows the published weights",
        json.loads((folder / "processor_config.json").read_text())["refiner_fingerprint"],
        "`box_threshold` 0.25",
        "8 visual and 16 grounding queries",
    ):
        assert text in card.text, text


def test_results_are_those_of_the_weights(folder):
    """Of the best evaluation, whose weights were loaded at the end, and not of the last one."""
    log = [*LOG, {"step": 2, "eval_loss": 1.9, "eval_logps/chosen": -40.0}]
    write_card(folder, CardFacts("mine", origin="It was tuned.", training=train(log=log, weights_step=1)))
    card = check_card(folder)
    assert next(one.metric_value for one in card.data.eval_results) == 1.5
    assert "- The weights are those of step 1," in card.text
    write_card(folder, CardFacts("mine", origin="It was tuned.", training=train(log=log)))
    assert [(one.metric_type, one.metric_value) for one in check_card(folder).data.eval_results] == [("loss", 1.9)]


def test_a_card_of_a_person_stays(folder):
    mine = "---\nlicense: mit\n---\n# My model\n"
    (folder / "README.md").write_text(mine)
    assert not write_card(folder, CardFacts("mine", origin="It was tuned."))
    assert (folder / "README.md").read_text() == mine


def test_what_a_person_adds_to_our_card_stays(folder):
    """Text outside of markers; metadata that were added, changed or removed. The rest is new."""
    facts = CardFacts("mine", [BaseModel.find(PUBLISHED)], "finetune", "It was tuned.", training=train())
    write_card(folder, facts)
    text = (folder / "README.md").read_text()
    text = text.replace("license: gpl-3.0\n", "license: agpl-3.0\nthumbnail: x.png\n")
    text = text.replace(f"base_model: {PUBLISHED}\n", "")
    text = text.replace("<!-- lyrics:limits -->", "## Thanks\n\nTo all.\n\n<!-- lyrics:limits -->")
    (folder / "README.md").write_text(text.replace("5 rows", "6 rows"))
    write_card(folder, CardFacts("mine", [BaseModel.find(PUBLISHED)], "finetune", "Again.", training=train(log=[])))
    card = check_card(folder, license="agpl-3.0", thumbnail="x.png", base_model=None)
    assert "## Thanks\n\nTo all.\n" in card.text
    assert "(5 rows)" in card.text
    assert card.data.eval_results is None  # those of the earlier model were ours, and are no longer true
    assert "No evaluation of this model is recorded here." in card.text
    before = (folder / "README.md").read_text()
    write_card(folder, CardFacts("mine", [BaseModel.find(PUBLISHED)], "finetune", "Again.", training=train(log=[])))
    assert (folder / "README.md").read_text() == before


def test_what_an_earlier_card_says_of_the_training_stays(folder, tmp_path):
    """As after a merge; a card that a person wrote is no source."""
    write_card(folder, CardFacts("tuned", origin="It was tuned.", training=train()))
    earlier = (folder / "README.md").rename(tmp_path / "earlier.md")
    write_card(folder, CardFacts("merged", [BaseModel.find(PUBLISHED)], "finetune", "Merged."), earlier=earlier)
    card = check_card(folder, base_model=PUBLISHED, datasets=["me/chats"])
    assert (card.data.model_name, len(card.data.eval_results)) == ("merged", 2)
    assert "| learning_rate | 0.0001 |" in card.text
    assert "Merged." in card.text
    assert "It was tuned." not in card.text
    (folder / "README.md").unlink()
    earlier.write_text("# By hand")
    write_card(folder, CardFacts("merged", origin="Merged."), earlier=earlier)
    assert "By hand" not in check_card(folder, datasets=None).text


def test_the_licence_is_that_of_the_bases(folder, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    mit, unknown = BaseModel.find(tmp_path), BaseModel.find(tmp_path / "mine", "language model")
    published, llama = BaseModel.find(PUBLISHED), BaseModel("x", license="llama2")
    assert [one.license for one in (mit, unknown, published)] == ["mit", None, "gpl-3.0"]
    assert choose_license([mit]) == "mit"
    assert choose_license([mit, published, unknown]) == "gpl-3.0"
    assert choose_license([mit, llama]) == "other"
    assert choose_license([mit, unknown]) is choose_license([]) is None
    write_card(folder, CardFacts("mine", [mit, unknown], origin="It was joined.", is_untrained=True))
    card = check_card(folder, license=None, base_model=None)
    assert "- language model: a model without an id on the Hub (licence unknown)" in card.text
    assert "answers mean nothing yet" in card.text
    write_card(folder, CardFacts("mine", origin="It was trained.", license="gpl-3.0"))  # a choice of the owner
    assert "`gpl-3.0`." in check_card(folder).text
    write_card(folder, CardFacts("mine", [BaseModel("me/x", license="gpl-3.0")], "finetune", "It was tuned."))
    assert "It follows the weights of the base model" in check_card(folder, license="gpl-3.0").text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"license": "free"}, r"license must be one of .*, got 'free'"),
        ({"language": ["English"]}, r"language must be ISO 639 codes, got \['English'\]"),
        ({"datasets": ["/data/chats"]}, r"datasets must be Hub ids of data sets"),
        ({"bases": [BaseModel(None, hub_id="a/b")], "relation": "child"}, "base_model_relation must be one of adapter"),
    ],
)
def test_values_that_the_hub_does_not_know(changes, message):
    with pytest.raises(ValueError, match=message):
        build_metadata("mine", **changes)


def test_names_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sft").mkdir(parents=True)
    cached = tmp_path / "hub" / "models--me--my-model" / "snapshots" / "0a1b"
    assert find_hub_id(str(cached)) == "me/my-model"
    assert [find_hub_id(place) for place in ("me/model", "gpt2", "runs/sft", str(tmp_path), None)] == [
        "me/model",
        "gpt2",
        None,
        None,
        None,
    ]
    assert not any(map(is_hub_id, ("/a/b", "a/b/c", "../b", "a b", "~/b", "a--b", "", "C:\\b", "a/b.git")))


def test_data_are_named_without_folders(tmp_path, monkeypatch):
    """As the user named them, but not where they lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "private" / "alice"))
    for name in ("photos", "private/alice"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "private" / "chats.jsonl").touch()
    words = ["chats:40", "me/chats", "private/chats.jsonl", str(tmp_path / "private" / "chats.jsonl"), "photos/"]
    words += ["https://host/user/{00..02}.tar?key=secret", ".", "private/alice", "mixture:stage2"]
    words += ["refcoco/testA:private/alice", "table:private/chats.jsonl", "yolo:photos/"]
    names = name_data(words)
    assert [one.name for one in names] == [
        "chats:40",
        "me/chats",
        "chats.jsonl",
        "chats.jsonl",
        "photos",
        "{00..02}.tar",
        tmp_path.name,
        "files",
        "mixture:stage2",
        "refcoco/testA",
        "table:chats.jsonl",
        "yolo:photos",
    ]
    assert [one.hub_id for one in names if one.hub_id] == ["me/chats"]
    assert [one.name for one in names if one.is_drawn] == ["chats:40"]


def test_the_quick_start_runs_as_pasted(tmp_path, monkeypatch):
    """Of a complete model, in its own folder; the shipped model sees the red circle that the program draws."""
    folder = tmp_path / "mine"
    shutil.copytree(MICRO_CHECKPOINT, folder, ignore=shutil.ignore_patterns("README.md"))
    write_card(folder, CardFacts("mine", results=[EvalResult("image-text-to-text", "a", "a", "accuracy", 1.0)]))
    assert run_quick_start(ModelCard.load(folder / "README.md"), monkeypatch, folder).strip()


def test_results_replace_the_template_of_another_library(folder):
    """As PEFT leaves it beside an adapter; the card of a person stays."""
    result = EvalResult("image-text-to-text", "vqa", "VQA", "accuracy", 0.5, "accuracy")
    mine = "---\nlicense: mit\n---\n# My model\n"
    (folder / "README.md").write_text(mine)
    assert not add_results(folder, [result])
    assert (folder / "README.md").read_text() == mine
    (folder / "README.md").write_text(f"{mine}[More Information Needed]\n" * 30)
    assert add_results(folder, [result])
    assert [one.metric_value for one in check_card(folder).data.eval_results] == [0.5]
