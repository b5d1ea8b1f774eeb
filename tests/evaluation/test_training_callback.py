"""Tasks that are scored while a model is trained, through `lyrics sft`."""

import json
import shutil

import pytest

from lyrics import SCENE_PICTURE
from lyrics.assets import write_random_checkpoint
from lyrics_cli.main import main

from ..datasets_lyrics.catalog.data_sets import dump_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and questions of one's own."""
    found = tmp_path_factory.mktemp("training")
    write_random_checkpoint(found / "model")
    shutil.copy(SCENE_PICTURE, found / "a.png")
    dump_lines(found / "rows.jsonl", [{"image": "a.png", "question": f"What {n}?", "answer": "x"} for n in range(3)])
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "x"}]
    dump_lines(found / "train.jsonl", [{"images": ["a.png"], "messages": talk}] * 4)
    dump_lines(found / "eval.jsonl", [{"images": ["a.png"], "messages": talk}])
    return found


def sft(folder, out, *options):
    words = ["sft", "--config", "smoke", "--model", str(folder / "model"), "--output_dir", str(out), "--max_steps", "2"]
    words += ["--train_data", str(folder / "train.jsonl"), "--eval_data", str(folder / "eval.jsonl")]
    words += ["--per_device_train_batch_size", "2"]
    words += ["--eval_steps", "1", "--save_steps", "1", "--report_to", "none", "--use_cpu", "true"]
    return main([*words, "--eval_tasks", f"custom:{folder / 'rows.jsonl'}", "--eval_tasks_limit", "2", *options])


def test_scores_stand_beside_the_losses_and_choose_the_best_model(folder, tmp_path):
    """Through a recipe's options, at each evaluation; the first of equal models is the best."""
    options = ["--load_best_model_at_end", "true", "--metric_for_best_model", "eval_custom_all"]
    assert sft(folder, tmp_path / "run", *options) == 0
    state = json.loads((tmp_path / "run/trainer_state.json").read_text())
    scores = [(entry["step"], entry["eval_custom_all"]) for entry in state["log_history"] if "eval_custom_all" in entry]
    assert scores == [(1, 0.0), (2, 0.0)]
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry][:2] == [1, 2]
    assert (state["best_metric"], state["best_global_step"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eval_tasks", "vqa2:x"], "Did you mean vqav2"),
        (["--eval_strategy", "no"], "there is none: set eval_strategy"),
        (["--eval_tasks_limit", "0"], "eval_tasks_limit must be at least 1"),
    ],
)
def test_wrong_options_are_told_before_the_training(folder, tmp_path, capsys, options, message):
    assert sft(folder, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("run/checkpoint-*"))
