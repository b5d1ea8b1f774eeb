"""`lyrics sft`, `lyrics dpo`, `lyrics grpo` and `lyrics merge`: recipes, dry runs, going on, one directory."""

import json
from argparse import Namespace

import pytest
from transformers import AutoModelForImageTextToText

from lyrics.assets import ShapeChats, write_random_checkpoint
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import LyricsSFTConfig
from lyrics.trainers.common.data_arguments import DataArguments
from lyrics.trainers.dpo_trainer import LyricsDPOConfig
from lyrics.trainers.grpo_trainer import LyricsGRPOConfig
from lyrics.trainers.sft_setup import SFTModelArguments
from lyrics_cli.main import main
from lyrics_cli.recipe_files import list_recipes
from lyrics_cli.training import parse_recipe

from ..cards import check_card, run_quick_start

QUICK = ["--report_to", "none", "--logging_steps", "1", "--use_cpu", "true", "--eval_strategy", "no"]
TASKS = ["visual-question-answering", "visual-grounding"]
RECIPES = [(stage, name) for stage in ("stage2", "preferences", "rewards") for name in list_recipes(stage)]


@pytest.mark.parametrize(("stage", "name"), RECIPES)
def test_every_recipe_is_readable(stage, name, tmp_path):
    kind = {"stage2": LyricsSFTConfig, "preferences": LyricsDPOConfig, "rewards": LyricsGRPOConfig}[stage]
    options = ["--output_dir", str(tmp_path), "--bf16", "no"]
    arguments = Namespace(command="sft", config=name, help_all=False, more=options)
    model, data, training = parse_recipe(arguments, stage, (SFTModelArguments, DataArguments, kind))
    assert model.model
    assert data.train_data
    assert training.use_lora
    if name == "published":
        assert not training.trains("mqformer")
        assert (training.lora_r, training.lora_alpha, training.lora_dropout) == (8, 32, 0.05)
        assert training.lora_targets == ["q_proj", "k_proj", "v_proj"]
    if name == "qlora":
        assert training.load_in_4bit


def test_bars_are_for_terminals(tmp_path):
    """Standard error is none here; an option wins."""
    for options, expected in ((), True), (("--disable_tqdm", "false"), False):
        more = ["--output_dir", str(tmp_path), "--bf16", "no", *options]
        arguments = Namespace(command="sft", config="smoke", help_all=False, more=more)
        *_, training = parse_recipe(arguments, "stage2", (SFTModelArguments, DataArguments, LyricsSFTConfig))
        assert training.disable_tqdm is expected


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A checkpoint with a refiner, and LLaVA's JSON with images beside it and boxes."""
    folder = tmp_path_factory.mktemp("chats")
    write_random_checkpoint(folder / "micro")
    lines = []
    for index in range(4):
        row = ShapeChats(4)[index]
        row["images"][0].save(folder / f"{index}.png")
        box = row["visual_objects"][0].boxes[0].tolist()
        talk = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "<box>"}]
        lines.append(json.dumps({"image": f"{index}.png", "conversations": talk, "boxes": [box]}))
    (folder / "chats.jsonl").write_text("\n".join(lines))
    return folder


def sft(folder, out, *options, steps=1):
    settings = ["--model", str(folder / "micro"), "--train_data", str(folder / "chats.jsonl"), "--output_dir", str(out)]
    batch = ["--per_device_train_batch_size", "2", "--bf16", "no", "--max_steps", str(steps)]
    return main(["sft", *settings, *batch, *QUICK, *options])


def test_from_a_file_to_a_merged_model(chats, tmp_path, capsys, monkeypatch):
    """Images are refined on the way; the run goes on; the adapter is merged, with the base model's refiner.

    Cards of adapter and merged model tell of the training, and their quick starts run.
    """
    run, out = tmp_path / "run", tmp_path / "merged"
    assert sft(chats, run, "--save_steps", "1") == 0
    printed, bars = capsys.readouterr()
    assert "it/s" not in bars
    assert f"Wrote model and processor to {run}" in printed
    assert "language_projection" in printed
    assert f"Next: lyrics ask --model {run} IMAGE QUESTION, or lyrics merge {run}" in printed
    assert sft(chats, run, "--save_steps", "1", "--resume", steps=2) == 0
    state = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())
    assert [line["step"] for line in state["log_history"] if "loss" in line] == [1, 2]
    assert (run / "adapter_config.json").is_file()
    assert main(["merge", str(run), "--out", str(out)]) == 0
    assert LyricsProcessor.from_pretrained(out).has_refiner
    assert not any("lora" in name for name, _ in AutoModelForImageTextToText.from_pretrained(out).named_parameters())
    card = check_card(run, base_model=None, license=None, tags=["lyrics", *TASKS, "peft", "lora", "arxiv:2312.05278"])
    check_card(run / "checkpoint-2")
    assert json.loads((run / "lyrics_adapter.json").read_text())["training_data"] == ["chats.jsonl"]
    merged = check_card(out, base_model=None, tags=["lyrics", *TASKS, "arxiv:2312.05278"])
    for text in (card.text, merged.text):
        assert "- Data: `chats.jsonl` (4 rows)." in text
        assert "| lora_r | 8 |" in text
        assert "](losses.png)" in text
    for folder, one in ((run, card), (out, merged)):
        assert (folder / "losses.png").is_file()
        assert run_quick_start(one, monkeypatch, folder)
    monkeypatch.undo()
    assert main(["merge", str(run), "--out", str(out)]) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err


def test_a_finished_run_is_left_alone(chats, tmp_path, capsys):
    run = tmp_path / "run"
    assert sft(chats, run, "--save_steps", "1") == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert sft(chats, run, "--save_steps", "1", "--resume") == 0
    assert f"The run in {run} is finished (1 steps). Nothing was trained" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert sft(chats, run, "--save_steps", "1", "--resume", "--lora_r", "4", "--seed", "3") == 2
    assert "belongs to a run with other settings: seed is 42 there and 3 here, lora_r is 8 there and 4 here" in (
        capsys.readouterr().err
    )


def test_dry_run(chats, tmp_path, capsys):
    """The plan, and the first batch as text with what is learned between marks; nothing is trained."""
    assert sft(chats, tmp_path / "run", "--dry-run", "--freeze", "mqformer") == 0
    plan = capsys.readouterr().out
    assert "Step: 2 rows = 2 x 1 accumulated x 1 processes" in plan
    assert "Memory of a process, about:" in plan
    assert plan.count("USER: [24 tokens]") == plan.count(">>> [0.") == plan.count("</s><<<") == 2
    mqformer = next(line for line in plan.splitlines() if line.split()[:1] == ["mqformer"])
    assert mqformer.split()[1] == "0"
    assert not (tmp_path / "run" / "checkpoint-1").exists()


def test_refining_on_the_way_draws_no_bars(chats, tmp_path, capfd):
    """A batch of more images than are refined at once; a store is named once."""
    rows = (chats / "chats.jsonl").read_text().splitlines() * 5
    (chats / "many.jsonl").write_text("\n".join(rows))
    batch = ["--per_device_train_batch_size", "10", "--train_data", str(chats / "many.jsonl"), "--save_strategy", "no"]
    assert sft(chats, tmp_path / "run", *batch, steps=2) == 0
    error = capfd.readouterr().err
    assert "Refining" not in error
    assert error.count("lyrics refine-dataset DATA --out STORE") <= 1


def test_no_preferences(tmp_path, capsys):
    words = ["--config", "smoke", "--output_dir", str(tmp_path), "--train_data", "pairs:0", "--use_cpu", "true"]
    assert main(["dpo", *words]) == 2
    assert "'pairs:0' has no rows: COUNT must be at least 1" in capsys.readouterr().err


def test_preferences(tmp_path, capsys, monkeypatch):
    """Of the model that is made in memory, too, the adapter finds its base, which a dry run does not write.

    It is found from any folder, even if the run's was named relative to another one: the quick start runs there.
    """
    monkeypatch.chdir(tmp_path)
    words = ["--config", "smoke", "--output_dir", "run", "--train_data", "pairs:4", "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "2", "--report_to", "none", "--use_cpu", "true"]
    assert main(["dpo", *words, "--dry-run"]) == 0
    assert not (tmp_path / "run" / "base").exists()
    assert main(["dpo", *words]) == 0
    assert "Wrote model and processor" in capsys.readouterr().out
    assert (tmp_path / "run" / "lyrics_adapter.json").is_file()
    card = check_card(tmp_path / "run", language=["en"])
    drawn = "- Data: `pairs:4` (drawings of `ziya-lyrics`) (4 rows)."
    assert f"Stage: preference tuning (DPO).\n\n{drawn}" in card.text
    assert "`pip install '.[train]'`" in card.text
    assert run_quick_start(card, monkeypatch, tmp_path / "run")
    assert main(["merge", ".", "--out", str(tmp_path / "merged")]) == 0
    assert LyricsProcessor.from_pretrained(tmp_path / "merged").has_refiner


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train_data", "chats:4"], "no model: give --model DIR"),
        (["--model", "micro"], "no training data: give --train_data"),
        (["--config", "smoke", "--freeze", "encoder"], "a part to freeze or to train must be one of"),
        (["--config", "smoke", "--mqformer_text", "all"], "mqformer_text must be one of"),
        (["--config", "smoke", "--train_data", "chats:x"], "is not chats:COUNT"),
    ],
)
def test_mistakes(tmp_path, capsys, options, message):
    assert main(["sft", "--output_dir", str(tmp_path), "--bf16", "no", *options]) == 2
    assert message in capsys.readouterr().err


def test_pictures_in_lists_lie_in_the_folder_too(tmp_path):
    """F48."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"images": ["a.png", "../b.png"]}))
    with pytest.raises(ValueError, match=r"'\.\./b\.png' lies outside"):
        open_rows(str(tmp_path / "rows.jsonl"))[0]


def test_rewards(tmp_path, capsys, monkeypatch):
    """The plan shows prompts without answers; a reward of one's own is found beside the user; an adapter is written."""
    (tmp_path / "own_rewards.py").write_text(
        "def short(completions, expected_boxes, **columns):\n"
        "    return [float(len(one[0]['content']) % 5) for one in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    words = ["--config", "smoke", "--output_dir", str(out), "--train_data", "chats:2", "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "4", "--num_generations", "2", "--max_completion_length", "3"]
    words += ["--report_to", "none", "--use_cpu", "true", "--rewards", "iou", "count", "exact", "own_rewards.short"]
    assert main(["grpo", *words, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "Step: 4 answers = 4 x 1 accumulated x 1 processes" in plan
    assert "Answers: 2 to each of 2 prompts at a time, 3 tokens at most" in plan
    assert "Rewards: iou, count, exact, short" in plan
    assert plan.count("USER: [24 tokens]") == plan.count("ASSISTANT:\n  expected_") == 2
    assert not (out / "base").exists()
    assert main(["grpo", *words]) == 0
    assert "Wrote model and processor" in capsys.readouterr().out
    assert json.loads((out / "lyrics_adapter.json").read_text())["arguments"]["rewards"][-1] == "own_rewards.short"
    check_card(out, base_model=None)
