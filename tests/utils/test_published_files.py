"""Files of a model that are published: which they are, and that they name nothing of this machine."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from lyrics.utils.published_files import check_nothing_private, list_published, rewrite_json, without_machine

MODEL = (
    "README.md",
    "chat_template.jinja",
    "config.json",
    "losses.png",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "mqformer_tokenizer/tokenizer.json",
    "processor_config.json",
    "refiner/config.json",
    "refiner/model.safetensors",
    "tokenizer.json",
)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "lyrics_adapter.json")
LEFT = (
    ".lyrics.lock",
    ".model.saving/config.json",
    "base/config.json",
    "checkpoint-1/config.json",
    "checkpoint-1/model.safetensors",
    "manifest.json",
    "modeling_lyrics.py",
    "optimizer.pt",
    "runs/today/events.out.tfevents.1",
    "trainer_state.json",
    "training_args.bin",
)


@pytest.mark.parametrize("is_adapter", [False, True])
def test_what_belongs_to_a_model(tmp_path, is_adapter):
    for name in (*MODEL, *ADAPTER, *LEFT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    weights = {name for name in MODEL if name.startswith(("config", "model.", "model-", "refiner/"))}
    expected = {*ADAPTER, *MODEL} - weights if is_adapter else {*MODEL}
    assert {path.as_posix() for path in list_published(tmp_path, is_adapter)} == expected


@pytest.mark.parametrize(
    "text",
    [
        "see /home/alice/data",
        "C:\\\\Users\\\\alice\\\\data",
        "/Users/alice/photos",
        "token hf_" + "aB3dE5" * 6,
        "/data/private/run-7/config",
        "a secret: 0123456789abcdef-secret",
        f"{os.getcwd()}/x",
    ],
)
def test_private_texts_are_found(tmp_path, monkeypatch, text):
    """The message names file and line, and does not repeat the secret."""
    monkeypatch.setenv("SERVICE_API_KEY", "0123456789abcdef-secret")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.json").write_text(f"{{\n{json.dumps(text)}: 1}}")
    with pytest.raises(ValueError, match=r"sub/x\.json names a path, a token or a secret .* in line 2") as caught:
        check_nothing_private(tmp_path, ["/data/private/run-7"])
    assert text.split()[-1] not in str(caught.value)


@pytest.mark.parametrize("name", ["drawing.svg", "LICENSE", "model.safetensors"])
def test_private_texts_are_found_in_every_kind_of_file(tmp_path, name):
    """Of weights, in their metadata."""
    if name.endswith(".safetensors"):
        save_file({"a": torch.zeros(1)}, tmp_path / name, {"source": "/home/alice/run"})
    else:
        (tmp_path / name).write_text("<!-- /home/alice/run -->")
    with pytest.raises(ValueError, match=f"{name} names a path"):
        check_nothing_private(tmp_path)


def test_usual_texts_are_none(tmp_path, monkeypatch):
    """Also not where an environment variable with a telling name has a usual value, or a vocabulary has paths."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("TOKEN_TYPE", "transformers")
    (tmp_path / "README.md").write_text("transformers, false, and/or, https://huggingface.co/me/x, runs/stage2, ~/x")
    (tmp_path / "tokenizer.json").write_text('{"/home/alice/": 3}')
    save_file({"/home/alice/": torch.zeros(1)}, tmp_path / "weights.safetensors", {"format": "pt"})
    check_nothing_private(tmp_path, ["/data"])


def test_arguments_without_the_machine():
    arguments = {"output_dir": "x", "hub_token": "t", "push_to_hub": True, "run_name": "me", "learning_rate": 1.0}
    arguments |= {"logging_dir": "/logs", "accelerator": "/opt/a.yaml", "optim": "adamw", "lora_targets": ["q_proj"]}
    assert without_machine(arguments) == {"learning_rate": 1.0, "optim": "adamw", "lora_targets": ["q_proj"]}


def test_a_link_to_a_rewritten_file_keeps_its_content(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1, "y": 2}')
    os.link(tmp_path / "a.json", tmp_path / "b.json")
    rewrite_json(tmp_path / "b.json", x=5)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1, "y": 2}
    assert json.loads((tmp_path / "b.json").read_text()) == {"x": 5, "y": 2}
