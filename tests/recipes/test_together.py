"""Steps of the micro model that run at once."""

import json
import os
import sys

import pytest

from lyrics.recipes.micro.__main__ import _model_tasks, _shared_tasks, main
from lyrics.recipes.micro.pipeline.parallel import Task, run_together
from lyrics.recipes.micro.pipeline.steps import FINISHED, NEEDS, OWN, SHARED, Workshop

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


def test_two_run_at_once_and_a_third_after_what_it_needs(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    tasks = {
        "third": Task(["-c", FOLLOW, str(other)], tmp_path / "third.txt", ["second", "finished before"]),
        "first": Task(["-c", MEET, str(one), str(other)], tmp_path / "first.txt"),
        "second": Task(["-c", MEET, str(other), str(one)], tmp_path / "second.txt"),
    }
    run_together(tasks, at_once=2)
    assert int((tmp_path / "third.txt").read_text()) == max(1, (os.cpu_count() or 1) // 2)


def test_one_that_fails_says_why_and_what_needs_it_does_not_run(tmp_path):
    tasks = {
        "bad": Task(["-c", "raise ValueError('no scenes')"], tmp_path / "logs" / "bad.txt"),
        "after": Task(write(tmp_path / "after"), tmp_path / "after.txt", ["bad"]),
    }
    with pytest.raises(RuntimeError, match=r"status 1; .*bad.txt ends with:[\s\S]*ValueError: no scenes"):
        run_together(tasks, at_once=2)
    assert not (tmp_path / "after").exists()


def test_needs_come_before_what_needs_them(tmp_path):
    """As steps run one after the other, too."""
    order = list(SHARED)
    assert all(order.index(need) < order.index(name) for name, needs in NEEDS.items() for need in needs)
    assert list(_shared_tasks(Workshop(tmp_path), SHARED)) == order


def test_what_has_finished_is_no_task(tmp_path):
    shops = [Workshop(tmp_path, "full"), Workshop(tmp_path, "no_refiner", 1)]
    for folder, settings in ((shops[0].shared("vision"), shops[0].settings("vision")), (shops[1].own("composed"), {})):
        folder.mkdir(parents=True)
        (folder / FINISHED).write_text(json.dumps({"settings": settings}))
    assert set(SHARED) - set(_shared_tasks(shops[0], SHARED)) == {"vision"}
    left = {name: [*task.options][-len(OWN) :] for name, task in _model_tasks(shops, OWN).items()}
    assert left == {"full-0": [*OWN], "no_refiner-1": ["--steps", "stage1", "stage2", "evaluation"]}


def test_none_at_once_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["micro", "--out", str(tmp_path / "runs"), "--at-once", "0"])
    with pytest.raises(SystemExit):
        main()
    assert "--at-once must be at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
