"""From files as they are distributed to training, by command: a mixture of each family, and its resumption."""

import json
import shutil

import datasets
import pytest

from lyrics.assets import write_random_checkpoint
from lyrics.refinement import RefinementStore
from lyrics_cli.main import main

from ..datasets_lyrics.catalog.data_sets import write

QUICK = ["--report_to", "none", "--logging_steps", "1", "--use_cpu", "true", "--eval_strategy", "no"]
QUICK += ["--max_steps", "3", "--save_steps", "2", "--per_device_train_batch_size", "2"]
FAMILIES = {
    "captions": ["coco_captions", "flickr30k"],
    "vqa": ["vqav2", "scienceqa"],
    "text vqa": ["ocrvqa", "textvqa"],
    "referring": ["refcoco", "flickr30k_entities"],
    "dialogue": ["llava_mix665k", "llava_instruct"],
    "your own": ["yolo", "table"],
}
CHEAP = "referring"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_random_checkpoint(folder)
    return folder


def mixture_of(names, folder):
    for name in names:
        write(name, folder)
    (folder / "mixture.yaml").write_text(f"data: [{', '.join(names)}]\nrows_per_epoch: 4")
    return ["--train_data", str(folder / "mixture.yaml"), "--image_root", str(folder)]


def history(run):
    log = json.loads((run / "checkpoint-3/trainer_state.json").read_text())["log_history"]
    return [{name: value for name, value in line.items() if name != "num_tokens"} for line in log if "loss" in line]


def train_and_resume(run, *command):
    """The log of a whole run, after it was compared with that of the same run resumed after its second step."""
    command = [*command, "--output_dir", str(run), *QUICK]
    assert main(command) == 0
    whole = history(run)
    shutil.rmtree(run / "checkpoint-3")
    assert main([*command, "--resume"]) == 0
    assert history(run) == whole
    assert [line["step"] for line in whole] == [1, 2, 3]
    return whole


@pytest.mark.parametrize(
    "family", [name if name == CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_family_is_tuned_on(family, checkpoint, tmp_path):
    """Each line of the log has the losses of the data sets that were in its batch."""
    names = FAMILIES[family]
    options = ["--model", str(checkpoint), "--bf16", "no", "--max_length", "1000", *mixture_of(names, tmp_path)]
    lines = train_and_resume(tmp_path / "run", "sft", *options)
    for line in lines:
        losses = [line[f"loss_{name}"] for name in names if f"loss_{name}" in line]
        assert min(losses) - 1e-3 <= line["loss"] <= max(losses) + 1e-3
    assert {f"loss_{name}" for name in names} <= {name for line in lines for name in line}


@pytest.mark.slow
def test_captions_are_pretrained_on(tmp_path):
    """Without a refiner, as drawn captions alone have objects beside them."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    mqformer = json.dumps({**sizes, "num_visual_queries": 4, "num_grounding_queries": 0})
    options = ["--mqformer_config", mqformer, "--msp_weight", "0", *mixture_of(FAMILIES["captions"], tmp_path)]
    lines = train_and_resume(tmp_path / "run", "pretrain", "--config", "smoke", *options)
    assert {"loss_icg_coco_captions", "loss_itm_flickr30k"} <= {name for line in lines for name in line}


def test_a_mixture_is_refined_by_command(checkpoint, tmp_path, capsys):
    options = mixture_of(["vqav2", "table"], tmp_path)
    store = tmp_path / "seen"
    command = ["refine-dataset", options[1], "--root", str(tmp_path), "--out", str(store), "--model", str(checkpoint)]
    assert main(command) == 0
    assert list(RefinementStore.open(store).keys()) == [
        "vqav2/train2014/COCO_train2014_000000000007.jpg",
        "table/a.jpg",
    ]
