"""The recipe for SmolLM2, with a tiny language model of its form in its place."""

import json
from types import SimpleNamespace

import pytest

from lyrics import MICRO_CHECKPOINT, Lyrics
from lyrics.conversion import PartPlaces, replace_parts
from lyrics.recipes.smollm2.__main__ import read_settings
from lyrics.recipes.smollm2.knowledge import QUESTIONS, ask_knowledge
from lyrics.recipes.smollm2.language_model import find_gguf
from lyrics.recipes.smollm2.rehearsal import PROMPTS, read_rehearsal, write_rehearsal
from lyrics.recipes.smollm2.train import LOOKUPS, RefinedDialogues, train

from ..language_models import FAMILIES, save_language_model


def test_the_file_of_the_language_model_is_looked_for(tmp_path):
    (tmp_path / "package").mkdir()
    with pytest.raises(ValueError, match="holds 0 files"):
        find_gguf(tmp_path)
    file = tmp_path / "package" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.touch()
    assert find_gguf(tmp_path) == file


def said(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


def test_every_fourth_row_is_rehearsed():
    dialogues = [{"key": str(key), "image": None, "messages": []} for key in range(8)]
    rehearsal = [{"messages": [said("assistant", word)]} for word in "ab"]
    rows = RefinedDialogues(dialogues, SimpleNamespace(refine=lambda image, progress: [image]), rehearsal, 4)
    assert [bool(rows[index]["images"]) for index in range(8)] == [True, True, True, False] * 2
    assert [rows[index]["messages"] for index in (3, 7)] == [row["messages"] for row in rehearsal]


def test_a_smoke_run_changes_the_settings():
    full, smoke = read_settings(False), read_settings(True)
    assert smoke["training"]["max_steps"] == 1 < full["training"]["max_steps"]
    assert smoke["training"]["lora_r"] == full["training"]["lora_r"]
    assert "smoke" not in full


@pytest.mark.slow
def test_a_smoke_run(tmp_path):
    """One step of training, a point of the curve, the merged model, and its knowledge."""
    language = save_language_model(FAMILIES["smollm2"], tmp_path / "language")
    for part in replace_parts(MICRO_CHECKPOINT, PartPlaces(language_model=language)):
        part.save_pretrained(tmp_path / "composed")
    with Lyrics.from_pretrained(tmp_path / "composed") as assistant:
        write_rehearsal(assistant, tmp_path / "rehearsal.jsonl")
    rehearsal = read_rehearsal(tmp_path / "rehearsal.jsonl")
    assert {row["messages"][0]["content"][0]["text"] for row in rehearsal} <= set(PROMPTS)
    rehearsal = [{"messages": [said(role, "Well.") for role in ("user", "assistant")]}]
    train(tmp_path / "composed", tmp_path, read_settings(True), rehearsal)
    point = json.loads((tmp_path / "curve.jsonl").read_text().splitlines()[0])
    assert point["step"] == 1
    assert set(LOOKUPS) <= point.keys()
    with Lyrics.from_pretrained(tmp_path / "merged") as assistant:
        assert [outcome["question"] for outcome in ask_knowledge(assistant)] == list(QUESTIONS)
