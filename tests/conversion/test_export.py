"""Export of models and adapters: what is written, what is asked for, and cards of persons."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.conversion import export_model
from lyrics.conversion.push import export_aside
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.utils.model_card import CardFacts, write_card
from lyrics_cli.main import main

from ..cards import check_card, find_paths


@pytest.fixture
def mine(tmp_path):
    """A copy of the shipped model whose card is ours."""
    folder = shutil.copytree(MICRO_CHECKPOINT, tmp_path / "mine", ignore=shutil.ignore_patterns("README.md"))
    write_card(folder, CardFacts("mine", origin="It was trained.", license="mit"))
    return folder


@pytest.fixture
def adapter(tmp_path, mine):
    """Files of an adapter of `mine`, as a trainer leaves them; the weights are none of a model."""
    folder = tmp_path / "adapter"
    shutil.copytree(mine, folder, ignore=shutil.ignore_patterns("config.json", "model.safetensors", "refiner"))
    shutil.copyfile(mine / "processor_config.json", folder / "processor_config.json")
    save_file({"weight": torch.zeros(1)}, folder / "adapter_model.safetensors")
    details = {"base_model_name_or_path": str(mine), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(details))
    arguments = {"output_dir": str(folder), "hub_token": "x", "lora_r": 8}
    details = {"base_model": str(mine), "base_mark": "0", "trained_parts": [], "arguments": arguments}
    (folder / "lyrics_adapter.json").write_text(json.dumps(details))
    return folder


def test_an_export_is_the_model(mine, tmp_path):
    """The same bytes of weights; the card is refreshed for its new place, and keeps what it said."""
    files = export_model(mine, tmp_path / "out", language=["en"], base_model="me/base", repo_id="me/ready")
    assert {path.as_posix() for path in files} >= {"model.safetensors", "refiner/model.safetensors", "README.md"}
    for name in ("model.safetensors", "config.json", "refiner/model.safetensors", "refiner/config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (mine / name).read_bytes()
    card = check_card(tmp_path / "out", license="mit", language=["en"], base_model="me/base")
    assert 'name = "me/ready"' in card.text
    assert "# mine" in card.text
    assert "It was trained." in card.text
    assert not find_paths(tmp_path / "out", str(mine), published=True)


def test_a_model_is_exported_to_an_empty_folder(mine, tmp_path):
    """Beside the files of another model it would be a mixture of both."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out holds files"):
        export_model(mine, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_licence_is_one_that_the_hub_knows(mine, tmp_path):
    with pytest.raises(ValueError, match="license must be one of"):
        export_model(mine, tmp_path / "out", license="free")
    assert not (tmp_path / "out").exists()


def test_a_card_of_a_person_is_exported_as_it_is(mine, tmp_path):
    (mine / "README.md").write_text("# By hand\n\nFor all.\n")
    export_model(mine, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "# By hand\n\nFor all.\n"
    (mine / "README.md").write_text(f"# By hand\n\nIt lies in {mine}.\n")
    with pytest.raises(ValueError, match=r"README\.md names a path, .* in line 3: remove it there"):
        export_model(mine, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_adapter_needs_its_base_on_the_hub(mine, adapter, tmp_path):
    with pytest.raises(ValueError, match=r"is a folder of this machine, .* \(--base-model OWNER/NAME\)"):
        export_model(adapter, tmp_path / "out")
    with pytest.raises(ValueError, match=r"must be a Hub id .*, got '/x'"):
        export_model(adapter, tmp_path / "out", base_model="/x")
    export_model(adapter, tmp_path / "out", base_model="me/base")
    details = json.loads((tmp_path / "out" / "lyrics_adapter.json").read_text())
    assert (details["base_model"], details["arguments"]) == ("me/base", {"lora_r": 8})
    assert not (tmp_path / "out" / "refiner").exists()
    assert not find_paths(tmp_path / "out", published=True)
    check_card(tmp_path / "out", base_model="me/base", base_model_relation="adapter")
    template = "---\nbase_model: " + str(mine) + "\n---\n" + "[More Information Needed]\n" * 39
    (adapter / "README.md").write_text(template)  # as PEFT saves it
    export_model(adapter, tmp_path / "peft", base_model="me/base")
    check_card(tmp_path / "peft", base_model="me/base")
    (adapter / "README.md").write_text(f"# By hand\n\nOn {mine}.\n")
    with pytest.raises(ValueError, match=r"README\.md names a path"):
        export_model(adapter, tmp_path / "hand", base_model="me/base")
    with pytest.raises(ValueError, match="me/base cannot be its own base model"):
        export_model(adapter, tmp_path / "itself", base_model="me/base", repo_id="me/base")
    with pytest.raises(ValueError, match="is that of its base model: leave --refiner out"):
        export_model(adapter, tmp_path / "refined", base_model="me/base", refiner=mine)
    with pytest.raises(ValueError, match="An adapter has no code of its own"):
        export_model(adapter, tmp_path / "code", base_model="me/base", remote_code=True)


def test_a_missing_refiner_is_asked_for(mine, tmp_path):
    """A trainer that tunes the whole model leaves the refiner out of its folder."""
    with pytest.raises(ValueError, match=r"holds a refiner, so that .* would have no effect"):
        export_model(mine, tmp_path / "out", refiner=MICRO_CHECKPOINT)
    export_model(mine, tmp_path / "left", refiner="none")
    assert not (tmp_path / "left" / "refiner").exists()
    shutil.rmtree(mine / "refiner")
    with pytest.raises(ValueError, match=r"holds no refiner, and its processor was saved with one .*--refiner none"):
        export_model(mine, tmp_path / "out")
    export_model(mine, tmp_path / "none", refiner="none")
    assert "refiner=False" in (tmp_path / "none" / "README.md").read_text()
    export_model(mine, tmp_path / "whole", refiner=MICRO_CHECKPOINT)
    assert LyricsProcessor.from_pretrained(tmp_path / "whole").has_refiner
    shutil.copytree(MICRO_CHECKPOINT, tmp_path / "other")
    path = tmp_path / "mine" / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"refiner_fingerprint": "0"}))
    with pytest.raises(ValueError, match="was saved with 0: it belongs to another model"):
        export_model(mine, tmp_path / "wrong", refiner=MICRO_CHECKPOINT)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", r"config\.json' is not JSON"),
        ("tokenizer.json", None, "holds no tokenizer of the language model"),
        ("mqformer_tokenizer/tokenizer.json", None, "holds no tokenizer of the MQ-Former"),
        ("model.safetensors", None, "holds no weights as safetensors"),
        ("model.safetensors", b"", r"model\.safetensors' is damaged or incomplete"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "model-2.safetensors"}}',
            r"lacks model-2\.safetensors",
        ),
        ("refiner/model.safetensors", None, "holds no weights of the refiner"),
    ],
)
def test_an_incomplete_model_is_not_published(mine, tmp_path, name, content, message):
    if content is None:
        (mine / name).unlink()
    else:
        (mine / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        export_model(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_temporary_export_leaves_no_copy(mine):
    """Weights are links, and the folder is gone afterwards."""
    with export_aside(mine, "me/ready") as folder:
        assert folder.parent == mine
        assert (folder / "model.safetensors").stat().st_ino == (mine / "model.safetensors").stat().st_ino
        assert (folder / "config.json").stat().st_ino != (mine / "config.json").stat().st_ino
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not folder.exists()


def test_the_code_of_an_export_goes_on(mine, tmp_path):
    """Pushing an exported directory writes its code again; no file of the package is forgotten."""
    export_model(mine, tmp_path / "out", remote_code=True)
    code = {path.name for path in (tmp_path / "out").glob("*.py")}
    assert {"modeling_lyrics.py", "processing_lyrics.py", "modeling_refiner.py", "image_processing_lyrics.py"} <= code
    assert "AutoProcessor" in json.loads((tmp_path / "out" / "processor_config.json").read_text())["auto_map"]
    with export_aside(tmp_path / "out", "me/ready") as folder:
        assert {path.name for path in folder.glob("*.py")} == code
        assert "trust_remote_code=True" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "no", "--out", "out"], "There is no folder no"),
        (["export", "EMPTY", "--out", "out"], "holds no model: it has neither config.json nor adapter_config.json"),
        (["export", "PUBLISHED", "--out", "out"], "convert it first (`lyrics convert`)"),
        (
            ["export", "MICRO", "--out", "out", "--license", "mit"],
            "so that license would have no effect: write it there",
        ),
        (["export", "MICRO", "--out", "MICRO"], "exists and is not an empty directory"),
        (["push", "MICRO", "a/b/c", "--dry-run"], "A repository's id is OWNER/NAME"),
        (["push", "no", "me/x"], "There is no folder no"),
        (["push", "MICRO", "me/x"], "offline"),
    ],
)
def test_mistakes(arguments, message, published, tmp_path, monkeypatch, capsys):
    """Found before anything is sent; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": "empty", "PUBLISHED": str(published), "MICRO": str(MICRO_CHECKPOINT)}
    assert main([places.get(one, one) for one in arguments]) == 2
    assert message.lower() in capsys.readouterr().err.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
