"""The recipe for SmolLM2, with a tiny language model of its form in its place."""

import json

import pytest

from lyrics import MICRO_CHECKPOINT, Lyrics
from lyrics.conversion import PartPlaces, replace_parts
from lyrics.recipes.smollm2.__main__ import read_settings
from lyrics.recipes.smollm2.knowledge import QUESTIONS, ask_knowledge
from lyrics.recipes.smollm2.language_model import find_gguf
from lyrics.recipes.smollm2.train import LOOKUPS, train

from ..language_models import FAMILIES, save_language_model


def test_the_file_of_the_language_model_is_looked_for(tmp_path):
    (tmp_path / "package").mkdir()
    with pytest.raises(ValueError, match="holds 0 files"):
        find_gguf(tmp_path)
    file = tmp_path / "package" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.touch()
    assert find_gguf(tmp_path) == file


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
    train(tmp_path / "composed", tmp_path, read_settings(True))
    point = json.loads((tmp_path / "curve.jsonl").read_text().splitlines()[0])
    assert point["step"] == 1
    assert set(LOOKUPS) <= point.keys()
    with Lyrics.from_pretrained(tmp_path / "merged") as assistant:
        assert [outcome["question"] for outcome in ask_knowledge(assistant)] == list(QUESTIONS)
