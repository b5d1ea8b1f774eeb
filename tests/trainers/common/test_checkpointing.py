"""Checkpoints are complete or absent, whatever happens while they are written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from lyrics.trainers.common.checkpointing import CheckpointError, check_checkpoint, find_checkpoint, write_manifest
from lyrics.utils.folder_lock import FolderLock, FolderLockedError

from ...failpoints import Failpoints, full_disk
from ...pretraining_parts import build_rows
from ..two_ranks import build_trainer, history

ROOT = Path(__file__).parents[3]
SETUP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import tempfile
import torch
torch.set_num_threads(1)
from transformers.utils import logging
logging.set_verbosity_error()
from tests.trainers.two_ranks import build_trainer
trainer = build_trainer(tempfile.mkdtemp(), 1, max_steps=1, save_strategy="no", save_total_limit=1)
trainer.train()
"""
SAVE = """
trainer.args.output_dir = folder
for trainer.state.global_step in (1, 2):
    trainer._save_checkpoint(trainer.model, None)
"""


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "checkpoint-5"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "deep" / "state.json").write_text("{}")
    write_manifest(folder, 5, 1)
    return folder


def test_a_complete_checkpoint_is_found(checkpoint):
    manifest = check_checkpoint(checkpoint)
    assert manifest["step"] == 5
    assert manifest["files"].keys() == {"model.safetensors", "deep/state.json"}
    assert find_checkpoint(checkpoint.parent) == checkpoint


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing manifest", r"checkpoint-5 is incomplete: it has no manifest\.json"),
        ("damaged manifest", r"manifest\.json is damaged"),
        ("other manifest", r"manifest\.json is damaged"),
        ("missing file", r"checkpoint-5 is incomplete: deep.state\.json is missing"),
        ("truncated", r"model\.safetensors has 600 bytes instead of 700"),
        ("flipped byte", r"model\.safetensors was changed"),
    ],
)
def test_an_incomplete_checkpoint_is_skipped_and_named(checkpoint, caplog, fault, message):
    """The checkpoint before it is used instead."""
    logging.enable_propagation()
    older = checkpoint.with_name("checkpoint-4")
    shutil.copytree(checkpoint, older)
    weights, manifest = checkpoint / "model.safetensors", checkpoint / "manifest.json"
    content = weights.read_bytes()
    match fault:
        case "missing manifest":
            manifest.unlink()
        case "damaged manifest":
            manifest.write_text(manifest.read_text()[:50])
        case "other manifest":
            manifest.write_text(json.dumps([]))
        case "missing file":
            (checkpoint / "deep" / "state.json").unlink()
        case "truncated":
            weights.write_bytes(content[:600])
        case _:
            weights.write_bytes(content[:300] + b"x" + content[301:])
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(checkpoint)
    assert find_checkpoint(checkpoint.parent) == older
    assert "Skipped a checkpoint" in caplog.text
    assert str(checkpoint) in caplog.text


def test_every_flipped_letter_of_a_manifest_is_found(checkpoint):
    path = checkpoint / "manifest.json"
    content, manifest = path.read_bytes(), check_checkpoint(checkpoint)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 2
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            assert check_checkpoint(checkpoint) != manifest
    path.write_bytes(content)
    assert check_checkpoint(checkpoint) == manifest


def test_a_manifest_names_no_file_outside_its_checkpoint(checkpoint):
    """One of an earlier version, which has no checksum of its own."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"]
    path.write_text(json.dumps(manifest))
    check_checkpoint(checkpoint)
    manifest["files"]["../secret"] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"names a file outside the checkpoint: '\.\./secret'"):
        check_checkpoint(checkpoint)


def test_nothing_to_resume_from(tmp_path):
    with pytest.raises(CheckpointError, match="has no complete checkpoint to resume from"):
        build_trainer(tmp_path, 1).train(resume_from_checkpoint=True)
    with pytest.raises(CheckpointError, match=r"is incomplete: it has no manifest\.json"):
        build_trainer(tmp_path, 1).train(resume_from_checkpoint=str(tmp_path))


@pytest.fixture(scope="module")
def failpoints():
    with Failpoints(SETUP) as failpoints:
        yield failpoints


def test_killed_at_every_file_operation(failpoints, tmp_path):
    """After SIGKILL anywhere in a save, the checkpoint before it or the new one is complete."""
    folder = tmp_path / "run"
    steps_left = set()
    for run in failpoints.kill_everywhere(SAVE, folder, lambda: shutil.rmtree(folder, ignore_errors=True)):
        found = find_checkpoint(folder)
        steps_left.add(found and check_checkpoint(found)["step"])
        names = {path.name for path in folder.glob("checkpoint-*")}
        assert all(check_checkpoint(folder / name) for name in names), "a checkpoint under its name is complete"
        if not run.killed:
            assert [path.name for path in folder.glob("*")] == ["checkpoint-2"]
    assert steps_left == {None, 1, 2}


def test_a_killed_run_resumes(failpoints, tmp_path):
    """And removes what the killed save left behind."""
    folder = tmp_path / "run"
    operations = failpoints.run(SAVE, tmp_path / "whole").operations
    rename = next(index for index, name in enumerate(operations, 1) if name.endswith(" checkpoint-2"))
    assert operations[rename - 1].startswith("os.rename")
    assert failpoints.run(SAVE, folder, kill_at=rename).killed
    assert find_checkpoint(folder).name == "checkpoint-1"
    trainer = build_trainer(folder, 1, max_steps=2, save_steps=1, save_total_limit=1)
    trainer.train(resume_from_checkpoint=True)
    assert [line["step"] for line in history(trainer)] == [1, 2]
    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """The error names the checkpoint, and no incomplete checkpoint is left."""
    trainer = build_trainer(tmp_path, 1, max_steps=1, save_steps=1)
    trainer.train()
    trainer = build_trainer(tmp_path, 1, max_steps=2, save_steps=2)
    with full_disk(largest_file=50_000), pytest.raises(OSError, match=r"free some space .*checkpoint-2'"):
        trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert find_checkpoint(tmp_path).name == "checkpoint-1"


def test_a_checkpoint_of_an_earlier_run_is_replaced(tmp_path):
    for seed in (1, 2):
        trainer = build_trainer(tmp_path, 1, max_steps=1, save_steps=1, seed=seed)
        trainer.train()
    state = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["log_history"][0]["loss"] == history(trainer)[0]["loss"]


def test_the_oldest_are_removed_and_the_best_stays(tmp_path):
    trainer = build_trainer(
        tmp_path,
        1,
        eval_rows=build_rows(4),
        max_steps=4,
        save_steps=1,
        eval_steps=1,
        eval_strategy="steps",
        save_total_limit=2,
        metric_for_best_model="loss",
        load_best_model_at_end=True,
        learning_rate=0.0,  # so that nothing is better than the first
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best == str(tmp_path / "checkpoint-1")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-4", "checkpoint-1"}
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == best


@pytest.mark.parametrize("rows", [16, 20], ids=["at the end of an epoch", "within an epoch"])
def test_a_finished_run_takes_no_further_step(tmp_path, rows):
    """Its weights, its log of losses and its number of steps stay; with more steps it goes on."""
    settings = {"rows": build_rows(rows), "max_steps": 2, "save_steps": 1}
    whole = build_trainer(tmp_path, 1, **settings)
    whole.train()
    again = build_trainer(tmp_path, 1, **settings)
    again.train(resume_from_checkpoint=True)
    assert again.num_trained_steps == 0
    assert again.state.global_step == 2
    assert history(again) == history(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    longer = build_trainer(tmp_path, 1, **settings | {"max_steps": 3})
    longer.train(resume_from_checkpoint=True)
    assert (longer.num_trained_steps, longer.state.global_step) == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        ({"learning_rate": 0.5, "weight_decay": 0.3}, r"learning_rate is .* there and 0\.5 here, weight_decay is"),
        ({"mask_probability": 0.5}, r"mask_probability is .* there and 0\.5 here"),
        ({"rows": build_rows(17)}, "training rows is 16 there and 17 here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, changes, message):
    """By folder, and as the newest checkpoint of a folder."""
    settings = {"rows": build_rows(16), "max_steps": 1, "save_steps": 1, "seed": 5}
    build_trainer(tmp_path, 1, **settings).train()
    for resume in (True, str(tmp_path / "checkpoint-1")):
        with pytest.raises(CheckpointError, match=message):
            build_trainer(tmp_path, 1, **settings | changes).train(resume_from_checkpoint=resume)
    build_trainer(tmp_path, 1, **settings | {"logging_steps": 7, "max_steps": 2}).train(resume_from_checkpoint=True)


def test_a_run_resumes_from_its_own_checkpoint(tmp_path, caplog):
    """A newer checkpoint of an older run is skipped, and named."""
    logging.enable_propagation()
    settings = {"rows": build_rows(16), "save_steps": 1}
    build_trainer(tmp_path, 1, **settings, seed=1, max_steps=3).train()
    build_trainer(tmp_path, 1, **settings, seed=2, max_steps=1).train()
    trainer = build_trainer(tmp_path, 1, **settings, seed=2, max_steps=2)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.num_trained_steps == 1
    assert "checkpoint-3 belongs to a run with other settings: seed is 1 there and 2 here" in caplog.text


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with FolderLock(tmp_path, "training"), pytest.raises(FolderLockedError, match=r"is locked by process .*\(training"):
        build_trainer(tmp_path, 1, max_steps=1).train()
    build_trainer(tmp_path, 1, max_steps=1, save_strategy="no").train()
    assert not list(tmp_path.iterdir())
