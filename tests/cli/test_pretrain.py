"""`lyrics pretrain`: recipes with options over them, dry runs, going on, data by name."""

import argparse
import json
from argparse import Namespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, CLIPVisionConfig, CLIPVisionModel

from lyrics.assets import MICRO_CHECKPOINT, ShapeRows, write_random_checkpoint
from lyrics.assets.random_model import build_bert_tokenizer
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.modeling_lyrics import LyricsForPreTraining
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import LyricsPretrainingArguments
from lyrics.trainers.common.data_arguments import DataArguments
from lyrics.trainers.pretraining_setup import PretrainingModelArguments, build_pretraining
from lyrics_cli.main import main
from lyrics_cli.recipe_files import find_recipe, list_recipes, recipe_folder
from lyrics_cli.training import parse_recipe

from ..cards import check_card, run_quick_start

KINDS = (PretrainingModelArguments, DataArguments, LyricsPretrainingArguments)
SMALL = ["--train_data", "shapes:16", "--per_device_train_batch_size", "4", "--eval_strategy", "no"]
SMALL += ["--report_to", "none", "--logging_steps", "1", "--use_cpu", "true"]


def pretrain(out, *options, steps=2):
    settings = ["--config", "smoke", "--output_dir", str(out), "--max_steps", str(steps)]
    return main(["pretrain", *settings, *SMALL, *options])


@pytest.mark.parametrize("name", list_recipes("stage1"))
def test_every_recipe_is_readable(name, tmp_path):
    options = ["--output_dir", str(tmp_path), "--bf16", "no"]
    arguments = Namespace(command="pretrain", config=name, help_all=False, more=options)
    model, data, training = parse_recipe(arguments, "stage1", KINDS)
    assert data.train_data
    assert training.max_steps > 0
    assert training.output_dir == str(tmp_path)
    if name == "no_refiner":
        assert (model.mqformer_config["num_grounding_queries"], model.msp_weight) == (0, 0)


@pytest.mark.parametrize("path", sorted((recipe_folder() / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_takes_its_configurations(path):
    assert load_config_from_file(str(path)).mixed_precision == "bf16"


def test_train_and_go_on(tmp_path, capsys, monkeypatch):
    """What comes out loads; `--resume` takes the newest checkpoint, or starts where there is none. The card tells."""
    assert pretrain(tmp_path / "run", "--save_steps", "1", "--resume") == 0
    assert f"Wrote model and processor to {tmp_path / 'run'}" in capsys.readouterr().out
    LyricsForPreTraining.from_pretrained(tmp_path / "run")
    processor = LyricsProcessor.from_pretrained(tmp_path / "run")
    assert {"[BOS]", "[DEC]", "[MLM]"} <= processor.mqformer_tokenizer.get_vocab().keys()
    mine = (
        (tmp_path / "run" / "README.md")
        .read_text()
        .replace("<!-- lyrics:citation -->", "By hand.\n\n<!-- lyrics:citation -->")
    )
    (tmp_path / "run" / "README.md").write_text(mine)
    assert pretrain(tmp_path / "run", "--save_steps", "1", "--resume", steps=3) == 0
    card = check_card(tmp_path / "run", pipeline_tag=None, language=["en"])
    assert "By hand." in card.text
    assert "- Duration: 3 steps" in card.text
    assert "| weights of the losses | " in card.text
    assert "torch.Size([1, " in run_quick_start(card, monkeypatch, tmp_path / "run")
    state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    assert [line["step"] for line in state["log_history"] if "loss" in line] == [1, 2, 3]
    (tmp_path / "run" / "checkpoint-3" / "model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint-2" / "manifest.json").unlink()
    assert pretrain(tmp_path / "run", "--resume") == 2
    assert "has no complete checkpoint to resume from" in capsys.readouterr().err


def test_the_seed_decides_the_whole_run(tmp_path):
    """Whatever was drawn before: also the weights that it begins with."""
    made = []
    for before, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(before)
        assert pretrain(tmp_path / "run", "--seed", str(seed), steps=1) == 0
        made.append(load_file(tmp_path / "run" / "model.safetensors"))
    one, again, other = made
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_dry_run(tmp_path, capsys):
    """The plan, and the first batch as text with its masks; nothing is written."""
    assert pretrain(tmp_path / "run", "--dry-run") == 0
    plan = capsys.readouterr().out
    for words in ("Trained parameters", "mqformer", "Step: 4 rows", "Memory of a process", "activations"):
        assert words in plan
    assert plan.count("caption: [CLS]") == 2
    assert "[MLM]" in plan
    assert "labels:" in plan
    assert not (tmp_path / "run" / "checkpoint-2").exists()


def test_without_refiner(tmp_path, capsys):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    mqformer = json.dumps(sizes | {"num_visual_queries": 4, "num_grounding_queries": 0})
    assert pretrain(tmp_path, "--mqformer_config", mqformer, "--msp_weight", "0", "--dry-run") == 0
    plan = capsys.readouterr().out
    assert "Objectives: itc 1, itm 1, icg 1\n" in plan
    assert "masked:" not in plan


def test_from_pretrained_parts(tmp_path):
    """Vision encoder and BERT from directories, the refiner of a checkpoint for images without objects."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)).save_pretrained(tmp_path / "vision")
    tokenizer = build_bert_tokenizer()
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    write_random_checkpoint(tmp_path / "micro")
    rows = [{"image": f"{index}.png", "caption": f"image {index}"} for index in range(4)]
    for index, row in enumerate(rows):
        ShapeRows(4)[index]["image"].save(tmp_path / row["image"])
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"vision_model": "vision", "mqformer": "bert", "processor": "micro", "train_data": "rows.jsonl"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(tmp_path / value))]
    mqformer = {"num_attention_heads": 2, "num_grounding_queries": 3, "num_visual_queries": 2, "region_hidden_size": 36}
    words += ["--mqformer_config", json.dumps(mqformer), "--output_dir", str(tmp_path / "run"), "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "2", "--report_to", "none", "--use_cpu", "true"]
    assert main(["pretrain", *words]) == 0
    config = LyricsForPreTraining.from_pretrained(tmp_path / "run").config
    assert config.mqformer_config.num_queries == 5
    assert LyricsProcessor.from_pretrained(tmp_path / "run").num_query_tokens == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--config", "nothing"],
            "no file and no recipe 'nothing'; the recipes are micro_search, no_msp, no_refiner, paper",
        ),
        (["--config", "smoke", "--train_data", "shapes:x"], "is not shapes:COUNT"),
        (["--config", "smoke", "--train_data", "missing.jsonl"], "There is no file missing.jsonl"),
        (["--config", "smoke", "--mask_unit", "word"], "mask_unit must be one of"),
        (["--config", "smoke", "--vision_config", "{}"], "Give vision_model"),
        (["--config", "smoke", "--vision_config", "{"], "vision_config is not a JSON object"),
        (["--config", "smoke", "--checkpoint", str(MICRO_CHECKPOINT)], "is a model of type 'lyrics', and the"),
        (["--config", "smoke", "--processor", str(MICRO_CHECKPOINT)], "width 36. Leave region_hidden_size out"),
    ],
)
def test_mistakes(tmp_path, capsys, options, message):
    assert main(["pretrain", "--output_dir", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("sign", [" ", "="])
def test_an_option_changes_fields_of_the_recipe_s_mqformer(tmp_path, sign):
    """The other fields stay; those of the vision encoder are replaced as a whole."""
    words = f"""--mqformer_config{sign}{{"num_visual_queries":3}}""".split(" ")
    more = [*words, "--vision_config", '{"model_type":"clip_vision_model"}', "--output_dir", str(tmp_path)]
    arguments = argparse.Namespace(command="pretrain", config="smoke", more=more, help_all=False)
    kinds = (PretrainingModelArguments, DataArguments, LyricsPretrainingArguments)
    parsed = parse_recipe(arguments, "stage1", kinds)[0]
    assert (parsed.mqformer_config["num_visual_queries"], parsed.mqformer_config["hidden_size"]) == (3, 64)
    assert parsed.vision_config == {"model_type": "clip_vision_model"}


def test_unknown_keys(tmp_path, capsys):
    """In a recipe, and among the options, where a beginning of an option is none."""
    (tmp_path / "recipe.yaml").write_text("lerning_rate: 1.0\n")
    assert main(["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path)]) == 2
    wrong = "has the unknown key '{}': did you mean 'learning_rate'? `lyrics pretrain --help-all` lists"
    assert f"recipe.yaml {wrong.format('lerning_rate')}" in capsys.readouterr().err
    assert main(["pretrain", "--config", "smoke", "--learning_rat", "0.1", "--output_dir", str(tmp_path)]) == 2
    assert f"The command line {wrong.format('learning_rat')}" in capsys.readouterr().err
    assert main(["pretrain", "--config", "smoke", "--output_dir", str(tmp_path), "twice"]) == 2
    assert "The command line has 'twice', which belongs to no option." in capsys.readouterr().err
    with pytest.raises(ValueError, match="no recipe 'smoke2'"):
        find_recipe("smoke2", "stage1")


def test_pictures_of_a_file_lie_in_its_folder(tmp_path):
    """A path that leads out of it is refused."""
    (tmp_path / "data").mkdir()
    ShapeRows(1)[0]["image"].save(tmp_path / "data" / "a.png")
    ShapeRows(1)[0]["image"].save(tmp_path / "secret.png")
    lines = [json.dumps({"image": path, "caption": "x"}) for path in ("a.png", "../secret.png", "http://x/y")]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(lines))
    rows = open_rows(str(tmp_path / "data" / "rows.jsonl"))
    assert rows[0]["image"] == str((tmp_path / "data" / "a.png").resolve())
    with pytest.raises(ValueError, match=r"'http://x/y' is a URL; images are not fetched"):
        rows[2]
    assert open_rows(str(tmp_path / "data" / "rows.jsonl"), fetch_urls=True)[2]["image"] == "http://x/y"
    with pytest.raises(ValueError, match=r"'\.\./secret\.png' lies outside"):
        rows[1]
    stream = open_rows(str(tmp_path / "data" / "rows.jsonl"), streaming=True)
    assert next(iter(stream))["image"] == rows[0]["image"]


def test_a_first_stage_goes_on_with_its_own_processor(tmp_path):
    """Of another model it takes the refiner alone, whatever that model's tokenizer and spatial text are."""
    write_random_checkpoint(tmp_path / "other")
    mqformer = {"region_hidden_size": 36, "num_grounding_queries": 3, "num_visual_queries": 2}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {"model_type": "clip_vision_model", **sizes, "image_size": 28, "patch_size": 14}
    new = PretrainingModelArguments(
        vision_config=vision, mqformer_config=sizes | mqformer, tokenizer="spelling", spatial_text="short"
    )
    model, processor = build_pretraining(new)
    model.save_pretrained(tmp_path / "first")
    processor.save_pretrained(tmp_path / "first")
    places = {"checkpoint": str(tmp_path / "first"), "processor": str(tmp_path / "other")}
    _, again = build_pretraining(PretrainingModelArguments(**places, spatial_text="short"))
    assert (again.spatial_text, again.num_query_tokens, again.has_refiner) == ("short", 5, True)
    text = "a red star"
    assert again.mqformer_tokenizer(text).input_ids == processor.mqformer_tokenizer(text).input_ids
    with pytest.raises(ValueError, match="was trained on short spatial text and cannot read decimal"):
        build_pretraining(PretrainingModelArguments(**places, spatial_text="decimal"))
