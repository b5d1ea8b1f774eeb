"""Evaluations that are killed at any moment, and evaluations on two processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lyrics import MICRO_CHECKPOINT

from ..failpoints import Failpoints
from ..trainers.launch import run_on_two_processes
from .conftest import PROMPTS
from .test_evaluate import contents

ROOT = Path(__file__).parents[2]
SETUP = """
import os, signal, sys
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from contextlib import contextmanager
from transformers.utils import logging
logging.set_verbosity_error()
from lyrics import Lyrics
from lyrics.assets import random_parts
from lyrics.evaluation import EvaluationOptions, evaluate
from lyrics.evaluation.tasks import parse_units
model, processor = random_parts(seed=0)
processor.refiner
units = parse_units(["pope/random"], {data!r}, {prompts!r})
options = EvaluationOptions(batch_size=1, max_new_tokens=1)

def run(folder, kill_at=0):
    @contextmanager
    def progress(what, total, done):
        yield step
    def step(score, steps=[]):
        steps.append(score)
        if len(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    evaluate(units, lambda: Lyrics(model, processor), folder, options, progress)
"""


@pytest.fixture(scope="module")
def failpoints(benchmarks):
    """Process that has imported everything and built a model."""
    setup = SETUP.format(root=str(ROOT), data=str(benchmarks), prompts=PROMPTS[1:2])
    with Failpoints(setup) as process:
        yield process


def answers(out):
    return [json.loads(line)["sample"] for path in out.glob("*/answers-*") for line in path.read_text().splitlines()]


def complete(failpoints, out, whole):
    """Run again, to the end: the same files, and no sample was answered twice."""
    run = failpoints.run("run(folder)", out)
    assert run.error is None
    assert contents(out) == whole
    assert sorted(answers(out)) == list(range(len(answers(out))))
    assert not [path for path in out.rglob(".*") if path.name.startswith(".")]


def test_killed_while_it_asks_and_while_it_writes(failpoints, tmp_path):
    """Between two answers, and before some of the file operations; the slow test tries all of them."""
    out = tmp_path / "out"
    run = failpoints.run("run(folder)", out)
    assert run.error is None
    whole, count = contents(out), len(run.operations)
    assert len(whole) == 5
    shutil.rmtree(out)
    assert failpoints.run("run(folder, 1)", out).error == "the process died"
    assert answers(out) == [0]
    complete(failpoints, out, whole)
    leftover = out / "objects" / "ab" / ".objects.tmp-0123456789ab"
    leftover.parent.mkdir(exist_ok=True)
    leftover.touch()
    complete(failpoints, out, whole)
    for kill_at in (5, count // 2, count - 8, count - 1):
        shutil.rmtree(out)
        assert failpoints.run("run(folder)", out, kill_at).killed
        complete(failpoints, out, whole)


@pytest.mark.slow
def test_killed_at_every_operation(failpoints, tmp_path):
    out = tmp_path / "out"
    assert failpoints.run("run(folder)", out).error is None
    whole = contents(out)
    for run in failpoints.kill_everywhere("run(folder)", out, lambda: shutil.rmtree(out, ignore_errors=True)):
        if run.killed:
            complete(failpoints, out, whole)
    assert contents(out) == whole


@pytest.mark.slow
def test_two_processes_find_what_one_finds(benchmarks, tmp_path):
    """As `accelerate launch` starts them; the second run is killed on one process and completed on two."""
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    words = ["evaluate", "vqav2", "refcoco/val", "pope/random", "--model", str(MICRO_CHECKPOINT), *prompts]
    words += ["--data", str(benchmarks), "--batch-size", "4", "--device", "cpu", "--out"]
    alone = tmp_path / "alone"
    command = [sys.executable, "-m", "lyrics_cli.main", *words, str(alone)]
    subprocess.run(command, check=True, capture_output=True)
    whole = contents(alone)
    two = tmp_path / "two"
    run_on_two_processes("lyrics_cli.main", [*words, str(two)])
    assert contents(two) == whole
    assert len(list(two.glob("vqav2-val/answers-*.jsonl"))) == 2
    path = alone / "vqav2-val/answers-0.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    run_on_two_processes("lyrics_cli.main", [*words, str(alone)])
    assert contents(alone) == whole
    assert sorted(answers(alone)) == sorted(answers(two))
