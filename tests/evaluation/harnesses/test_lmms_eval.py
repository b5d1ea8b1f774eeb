"""lmms-eval itself with the shipped micro model and local tasks, offline, found by the entry point."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lyrics.assets import SCENE_PICTURE, draw_table

pytestmark = pytest.mark.lmms_eval
TASKS = Path(__file__).with_name("lmms_eval_tasks")
SCENE = str(SCENE_PICTURE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Questions about one picture, about two, and about none; several, so that batches are mixed."""
    table = tmp_path_factory.mktemp("pictures") / "table.png"
    draw_table().save(table)
    questions = [
        ("What color is the ring?", [SCENE], "purple", ["red", "purple", "blue"]),
        ("Is there a ring?", [SCENE], "yes", ["no", "yes"]),
        ("What color is the ring in the last picture?", [str(table), SCENE], "purple", ["green", "purple"]),
        ("What is red?", [], "star", ["star", "ring"]),
        ("Where is the red star?", [SCENE], "red star: [0.453, 0.398, 0.664, 0.617", ["here", "there"]),
    ]
    return [
        {
            "question": question,
            "images": images,
            "answer": answer,
            "choices": choices,
            "correct": choices.index(answer) if answer in choices else 0,
        }
        for question, images, answer, choices in questions
    ]


def run(folder, rows, task, *options):
    """Run a task; return its results, and the samples in the order of the rows."""
    tasks = folder / "tasks"
    shutil.copytree(TASKS, tasks)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tasks / f"{task}.yaml"
    file.write_text(file.read_text().replace("ROWS", str(folder / "rows.jsonl")))
    for other in tasks.glob("*.yaml"):
        if other != file:
            other.unlink()
    command = [
        sys.executable,
        "-m",
        "lmms_eval",
        "eval",
        "--model",
        "lyrics",
        "--tasks",
        task,
        "--include_path",
        str(tasks),
    ]
    command += ["--device", "cpu", "--output_path", str(folder / "out"), "--log_samples", *options]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=900, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [results] = (folder / "out").rglob("*_results.json")
    [samples] = (folder / "out").rglob(f"*_samples_{task}.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text())["results"][task], sorted(lines, key=lambda line: line["doc_id"])


def texts(samples):
    """The answers of samples."""
    return [sample["filtered_resps"][0] for sample in samples]


@pytest.fixture(scope="module")
def chat_answers(rows, tmp_path_factory):
    """Answers of the chat class in one batch."""
    return texts(run(tmp_path_factory.mktemp("chat"), rows, "lyrics_messages", "--batch_size", "4")[1])


def test_chat_answers_in_order_with_stop_strings(rows, chat_answers):
    assert chat_answers[:2] == ["purple", "yes"]
    assert chat_answers[4] == rows[4]["answer"]


def test_simple_class_searches_with_beams(rows, chat_answers, tmp_path):
    options = ["--force_simple", "--batch_size", "1", "--model_args", "refiner=True,max_new_tokens=8"]
    results, samples = run(tmp_path, rows, "lyrics_simple", *options)
    assert texts(samples)[:2] == chat_answers[:2]
    assert results["exact_match,none"] >= 0.4


def test_most_probable_choice_is_chosen(rows, tmp_path):
    results, samples = run(tmp_path, rows[:2], "lyrics_choice", "--force_simple", "--batch_size", "2")
    assert results["acc,none"] == 1
    assert len(samples) == 2


def test_rounds_go_on_until_the_task_ends_them(rows, tmp_path):
    results, _ = run(tmp_path, rows[:2], "lyrics_rounds", "--force_simple", "--batch_size", "1")
    assert results["rounds,none"] == 1
