"""Parallel execution of the steps of the micro model."""

import os
import sys

import pytest

from lyrics.recipes.micro.__main__ import main, model_tasks, shared_tasks
from lyrics.recipes.micro.common.run_folders import MODEL_STEPS, SHARED_STEPS, RunFolders
from lyrics.recipes.micro.pipeline.parallel import Task, run_tasks
from lyrics.recipes.micro.pipeline.steps import DEPENDENCIES, STEPS

MEET = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
deadline = time.monotonic() + 60
while not other.exists() and time.monotonic() < deadline:
    time.sleep(0.01)
sys.exit(not other.exists())
"""
FOLLOW = (
    "import os, pathlib, sys; print(os.environ['OMP_NUM_THREADS']); sys.exit(not pathlib.Path(sys.argv[1]).exists())"
)


def write(path):
    return ["-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()", str(path)]


def test_two_tasks_run_in_parallel_and_a_third_after_its_dependency(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    tasks = {
        "third": Task(["-c", FOLLOW, str(other)], tmp_path / "third.txt", ["second", "finished before"]),
        "first": Task(["-c", MEET, str(one), str(other)], tmp_path / "first.txt"),
        "second": Task(["-c", MEET, str(other), str(one)], tmp_path / "second.txt"),
    }
    run_tasks(tasks, max_parallel=2)
    assert int((tmp_path / "third.txt").read_text()) == max(1, (os.cpu_count() or 1) // 2)


def test_a_failed_task_is_reported_and_dependent_tasks_do_not_run(tmp_path):
    tasks = {
        "bad": Task(["-c", "raise ValueError('no scenes')"], tmp_path / "logs" / "bad.txt"),
        "after": Task(write(tmp_path / "after"), tmp_path / "after.txt", ["bad"]),
    }
    with pytest.raises(RuntimeError, match=r"status 1; .*bad.txt ends with:[\s\S]*ValueError: no scenes"):
        run_tasks(tasks, max_parallel=2)
    assert not (tmp_path / "after").exists()


def test_dependencies_come_first(tmp_path):
    order = list(SHARED_STEPS)
    assert list(STEPS) == [*SHARED_STEPS, *MODEL_STEPS]
    assert all(order.index(need) < order.index(name) for name, needs in DEPENDENCIES.items() for need in needs)
    assert list(shared_tasks(RunFolders(tmp_path), SHARED_STEPS)) == order


def test_finished_steps_are_no_tasks(tmp_path):
    models = [RunFolders(tmp_path, "full"), RunFolders(tmp_path, "no_refiner", 1)]
    for folders, step in zip(models, ("vision", "composed"), strict=True):
        folders.folder(step).mkdir(parents=True)
        folders.mark_finished(step, 0, folders.settings(step))
    assert set(SHARED_STEPS) - set(shared_tasks(models[0], SHARED_STEPS)) == {"vision"}
    left = {name: [*task.options][-4:] for name, task in model_tasks(models, MODEL_STEPS).items()}
    assert left == {"full-0": [*MODEL_STEPS], "no_refiner-1": ["--steps", "stage1", "stage2", "evaluation"]}


def test_zero_parallel_tasks_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["micro", "--out", str(tmp_path / "runs"), "--at-once", "0"])
    with pytest.raises(SystemExit):
        main()
    assert "--at-once must be at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
