"""lmms-eval itself with the shipped micro model and local tasks, offline, found by the entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lyrics import Lyrics
from lyrics.assets import SCENE_PICTURE, draw_table

pytestmark = pytest.mark.lmms_eval
TASKS = Path(__file__).with_name("lmms_eval_tasks")
SCENE = str(SCENE_PICTURE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Questions about one image, about two, and about none; several, so that batches are mixed."""
    table = tmp_path_factory.mktemp("pictures") / "table.png"
    draw_table().save(table)
    questions = [
        ("What color is the ring?", [SCENE], "purple", ["red", "purple", "blue"]),
        ("Is there a star?", [SCENE], "yes", ["no", "yes"]),
        ("What color is the ring in the last picture?", [str(table), SCENE], "purple", ["green", "purple"]),
        ("What is red?", [], "star", ["star", "ring"]),
        ("Where is the red star?", [SCENE], "red star", ["here", "there"]),
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


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory):
    """A function that runs tasks; it returns for each its results, and the samples in the order of the rows."""

    def run(tasks, *options):
        folder = tmp_path_factory.mktemp("run")
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for file in [TASKS / "utils.py", *(TASKS / f"{task}.yaml" for task in tasks)]:
            (folder / file.name).write_text(file.read_text().replace("ROWS", str(folder / "rows.jsonl")))
        command = [sys.executable, "-m", "lmms_eval", "eval", "--model", "lyrics", "--tasks", ",".join(tasks)]
        command += ["--include_path", str(folder), "--device", "cpu", "--batch_size", "3"]
        command += ["--output_path", str(folder / "out"), "--log_samples", *options]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        done = subprocess.run(
            command, env=os.environ | offline, capture_output=True, text=True, timeout=3000, cwd=folder
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        results = list((folder / "out").rglob("*_results.json"))
        assert len(results) == 1, done.stdout[-3000:]  # lmms-eval logs errors, and ends with exit code 0
        scores = json.loads(results[0].read_text())["results"]
        return {task: (scores[task], samples_of(folder, task)) for task in tasks}

    return run


def samples_of(folder, task):
    """The samples that lmms-eval wrote for a task."""
    [file] = (folder / "out").rglob(f"*_samples_{task}.jsonl")
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda line: line["doc_id"])


def texts(samples):
    """The answers of samples."""
    return [answer if isinstance(answer, str) else answer[0] for answer in (one["filtered_resps"] for one in samples)]


@pytest.fixture(scope="module")
def chat(run):
    """The task of messages, with the chat class."""
    return run(["lyrics_messages"])["lyrics_messages"]


@pytest.fixture(scope="module")
def simple(run):
    """The other tasks, with the simple class."""
    options = ["--force_simple", "--model_args", "refiner=True,max_new_tokens=8"]
    return run(["lyrics_simple", "lyrics_choice", "lyrics_rounds"], *options)


def test_chat_answers_in_order_with_stop_strings(rows, chat):
    with Lyrics.from_pretrained() as assistant:
        alone = [assistant.ask(row["images"], row["question"]).text for row in rows]
    answers = texts(chat[1])
    assert answers[:2] == alone[:2] == ["purple", "yes"]
    assert answers[4] == alone[4].split("]")[0]  # the stop string of the task


def test_simple_class_searches_with_beams(simple, chat):
    results, samples = simple["lyrics_simple"]
    assert texts(samples)[:2] == texts(chat[1])[:2]
    assert results["exact_match,none"] >= 0.4


def test_most_probable_choice_is_chosen(simple):
    _, samples = simple["lyrics_choice"]
    assert [sample["acc"] for sample in samples[:2]] == [1, 1]
    assert [sample["exact_match"] for sample in samples[:2]] == [1, 1]  # the model would have written it


def test_rounds_go_on_until_the_task_ends_them(simple, rows):
    results, samples = simple["lyrics_rounds"]
    assert results["rounds,none"] == 1
    assert len(samples) == len(rows)
