"""What a user of the package does on the Hub: `python -m tests.hub.with_package FOLDER [STEP ...]`.

HF_ENDPOINT names the Hub, and FOLDER holds the checkpoint `tiny`. The last line of the output is a JSON object.
"""

import contextlib
import io
import json
import shutil
import sys
import traceback
from itertools import product
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from lyrics import LyricsForConditionalGeneration, LyricsForPreTraining, LyricsProcessor
from lyrics.assets import MICRO_CHECKPOINT, ShapeChats, ShapePairs
from lyrics.conversion import merge_adapter
from lyrics.modeling_lyrics.adapter_checks import mark_base
from lyrics.trainers import LyricsSFTConfig, LyricsSFTTrainer
from lyrics.trainers.dpo_trainer import LyricsDPOConfig, LyricsDPOTrainer, to_dataset
from lyrics_cli.main import main

from ..pretraining_parts import build_rows
from ..trainers.two_ranks import build_trainer as build_pretraining_trainer
from . import CHECKPOINTS, OTHERS, PUBLISHED, STRATEGIES

FOLDER = Path(sys.argv[1])
TINY = FOLDER / "tiny"


def run(*arguments):
    """Exit code, output and error output of a command."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main([str(one) for one in arguments])
    return code, out.getvalue(), error.getvalue()


def describe(name, **options):
    model = LyricsForConditionalGeneration.from_pretrained(name, **options)
    processor = LyricsProcessor.from_pretrained(name, **options)
    return {"model": mark_base(model), "refiner": processor.refiner.fingerprint()}


def published():
    auto = AutoModelForImageTextToText.from_pretrained(PUBLISHED), AutoProcessor.from_pretrained(PUBLISHED)
    return describe(PUBLISHED) | {"auto": [type(one).__name__ for one in auto]}


def pushed():
    plan = run("push", TINY, "me/tiny", "--dry-run")
    pushes = [run("push", TINY, "me/tiny", "--private"), run("push", TINY, "me/tiny")]
    return {"plan": plan, "pushes": pushes} | describe("me/tiny")


def with_code():
    """The shipped model, for the machine without the package."""
    shutil.copytree(MICRO_CHECKPOINT, FOLDER / "micro")  # a push makes links beside the weights for a moment
    return run("push", FOLDER / "micro", "me/micro", "--remote-code")


def revisions():
    """Another model on a branch and in a pull request; the main branch stays."""
    model = LyricsForConditionalGeneration.from_pretrained(TINY)
    with torch.no_grad():
        model.model.mqformer.query_tokens += 1
    processor = LyricsProcessor.from_pretrained(TINY)
    for part in (model, processor):
        part.save_pretrained(FOLDER / "other")
    commands = [run("push", FOLDER / "other", "me/tiny", *words) for words in (["--revision", "v2"], ["--create-pr"])]
    names = ("main", "v2", "refs/pr/1")
    return {"commands": commands, "models": [describe("me/tiny", revision=name)["model"] for name in names]}


def moving():
    """Somebody pushes while the processor is loaded."""
    processor = LyricsProcessor.from_pretrained("other/moving")
    return {"refiner": processor.refiner.fingerprint(), "recorded": processor.refiner_fingerprint}


def gated():
    errors = []
    for load in (LyricsForConditionalGeneration.from_pretrained, LyricsProcessor.from_pretrained):
        try:
            load("other/gated")
        except OSError as error:
            errors.append(str(error))
    return [*errors, *run("ask", "--model", "other/gated", MICRO_CHECKPOINT.parent / "scene.png", "What?")]


def interrupted():
    return [run("push", TINY, "me/interrupted") for _ in range(2)]


def refused():
    """An adapter of a base model that is not there; a private push to a public repository."""
    model, processor = LyricsForConditionalGeneration.from_pretrained(TINY), LyricsProcessor.from_pretrained(TINY)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(FOLDER / "peft")
    processor.save_pretrained(FOLDER / "peft", save_refiner=False)
    return [
        run("push", FOLDER / "peft", "me/adapter", "--base-model", "me/typo"),
        run("push", TINY, "other/moving", "--private"),
    ]


def replaced():
    """An adapter in the place of a model with its code."""
    words = (TINY, "me/replaced", "--remote-code"), (FOLDER / "peft", "me/replaced", "--base-model", "me/tiny")
    return [run("push", *one)[0] for one in words]


def _settings(steps=2, **settings):
    settings = {"max_steps": steps, "save_steps": 1, "save_strategy": "steps", "logging_steps": 1} | settings
    settings |= {"use_cpu": True, "report_to": [], "disable_tqdm": True, "seed": 3}
    return settings | {"per_device_train_batch_size": 2}


def _build(name, model="me/tiny", **settings):
    rows = [{key: ShapeChats(4)[index][key] for key in ("images", "messages")} for index in range(4)]
    args = LyricsSFTConfig(str(FOLDER / name), bf16=False, **_settings(**settings))
    processor = LyricsProcessor.from_pretrained("me/tiny", refiner=False)
    trainer = LyricsSFTTrainer(model, args, rows, processing_class=processor)
    trainer.training_data = str(FOLDER / "private" / "chats.jsonl")
    return trainer


def trained():
    """Adapters of every strategy, of which one is loaded, merged and trained further from its last checkpoint."""
    for strategy in STRATEGIES:
        hub = {"push_to_hub": True, "hub_model_id": f"me/{strategy}", "hub_strategy": strategy}
        trainer = _build(strategy, hub_always_push=True, **hub)
        trainer.train()
        trainer.save_model()
    tuned = trainer.model.get_base_model().state_dict()
    loaded = LyricsForConditionalGeneration.from_pretrained("me/all_checkpoints").state_dict()
    names = [name for name in loaded if ".lora_A." in name or "query_tokens" in name]
    equal = [torch.equal(loaded[name], tuned[name]) for name in names if name in tuned]
    merged, processor = merge_adapter(snapshot_download("me/all_checkpoints"))
    place = Path(snapshot_download("me/checkpoint")) / "last-checkpoint"
    again = _build("again", steps=3)
    again.train(resume_from_checkpoint=str(place))
    return {
        "equal": equal,
        "merged": type(merged).__name__,
        "has_refiner": processor.has_refiner,
        "steps": [line["step"] for line in again.state.log_history if "loss" in line],
    }


def _build_dpo(name, **settings):
    args = LyricsDPOConfig(str(FOLDER / name), bf16=False, gradient_checkpointing=False, **_settings(**settings))
    trainer = LyricsDPOTrainer("me/tiny", args, to_dataset(ShapePairs(2)), None, LyricsProcessor.from_pretrained(TINY))
    trainer.training_data = "pairs:2"
    return trainer


def _build_full(name, **settings):
    return _build(name, use_lora=False, **settings)


def _build_first_stage(name, **settings):
    return build_pretraining_trainer(FOLDER / name, 1, build_rows(2), **_settings(**settings))


BUILDERS = {"dpo": _build_dpo, "full": _build_full, "first": _build_first_stage}


def others_trained(runs=OTHERS):
    """Runs of the other trainers; one that has uploaded a checkpoint is resumed from its download."""
    resumed = {}
    for kind, strategy in runs:
        name = f"{kind}-{strategy}"
        hub = {"push_to_hub": True, "hub_strategy": strategy, "hub_always_push": True}
        trainer = BUILDERS[kind](name, steps=1, **hub)  # the repository is named after the output directory
        trainer.train()
        trainer.save_model()
        if strategy in CHECKPOINTS:
            place = Path(snapshot_download(f"me/{name}")) / CHECKPOINTS[strategy]
            again = BUILDERS[kind](f"{name}-again", steps=2)
            again.train(resume_from_checkpoint=str(place))
            resumed[name] = [line["step"] for line in again.state.log_history if "loss" in line]
    return resumed


def every_strategy():
    """Runs of the other trainers with each strategy."""
    return others_trained(tuple(product(BUILDERS, STRATEGIES)))


def first_stage():
    trainer = build_pretraining_trainer(FOLDER / "stage1", 1, max_steps=1, save_strategy="no", hub_model_id="me/stage1")
    trainer.train()
    commit = trainer.push_to_hub("First stage")
    code = run("export", FOLDER / "stage1", "--out", FOLDER / "stage1-code", "--remote-code")
    return {"code": code, "oid": commit.oid, "model": type(LyricsForPreTraining.from_pretrained("me/stage1")).__name__}


def by_transformers():
    """A push by Transformers' own methods, of the model, then of the processor."""
    for part in (LyricsForConditionalGeneration, LyricsProcessor):
        part.from_pretrained(TINY).push_to_hub("me/parts")
    return describe("me/parts")


def local_base():
    """An adapter whose base model nobody can load is refused before the training."""
    errors = []
    for base_id in (None, "me/typo"):
        hub = {"push_to_hub": True, "hub_model_id": "me/local", "base_model_id": base_id}
        try:
            _build("local", model=str(TINY), **hub)
        except ValueError as error:
            errors.append(str(error))
    return errors


STEPS = (
    published,
    pushed,
    with_code,
    revisions,
    moving,
    gated,
    interrupted,
    refused,
    replaced,
    trained,
    others_trained,
    first_stage,
    by_transformers,
    local_base,
)


def run_steps():
    """Run all steps; one that fails does not stop the others."""
    results = {}
    for step in [globals()[name] for name in sys.argv[2:]] or STEPS:
        try:
            results[step.__name__] = step()
        except Exception:  # noqa: BLE001  (the test shows it)
            results[step.__name__] = {"error": traceback.format_exc()[-3000:]}
    return results


if __name__ == "__main__":
    found = run_steps()
    print("\n" + json.dumps(found))  # noqa: T201
