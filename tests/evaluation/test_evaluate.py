"""Evaluations as a whole: files, resuming, several processes, a comparison, a judge, a report; on tiny models."""

import http.server
import json
import re
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lyrics import SCENE_PICTURE, Lyrics
from lyrics.evaluation import EvaluationOptions, Ranks, evaluate
from lyrics.evaluation.comparison import compare_runs
from lyrics.evaluation.judging import FunctionJudge, ServerJudge
from lyrics.evaluation.tasks import parse_units, read_task
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.evaluate import answer_cases
from lyrics.recipes.micro.world.cases import draw_cases
from lyrics.recipes.micro.world.official_formats import SHORT_ANSWERS
from lyrics_cli.main import main

from ..datasets_lyrics.catalog.data_sets import dump_lines, write
from .conftest import PROMPTS

OPTIONS = EvaluationOptions(batch_size=4, max_new_tokens=3, name="mine")


@pytest.fixture(scope="module")
def finished(micro, units, tmp_path_factory):
    """Folder of a complete evaluation; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    evaluate(units, lambda: Lyrics(*micro), out, OPTIONS)
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of `finished`, to be changed."""
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def asked(monkeypatch):
    """Numbers of samples that the model is asked about, in batches."""
    batches = []
    ask = Lyrics.ask_many

    def ask_many(self, rows, **options):
        rows = list(rows)
        batches.append(len(rows))
        return ask(self, rows, **options)

    monkeypatch.setattr(Lyrics, "ask_many", ask_many)
    return batches


def contents(folder):
    """What an evaluation has found, by file."""
    names = ("results.json", "samples.jsonl", "report.html", "submission.json", "submission.jsonl")
    paths = sorted(path for path in folder.rglob("*") if path.name in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_files_of_an_evaluation(finished, benchmarks):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["tasks"]) == ["vqav2/val", "refcoco/val", "pope/random"]
    assert results["model"]["name"] == "mine"
    assert len(results["model"]["fingerprint"]) == 64
    assert results["refiner"]["thresholds"]
    vqa = results["tasks"]["vqav2/val"]
    assert (vqa["samples"], vqa["failed"], vqa["omitted"]) == (14, 0, {})
    assert vqa["decoding"] == {"max_new_tokens": 3, "num_beams": 1}
    assert {group["name"] for group in vqa["groups"]["question type"]} == set(SHORT_ANSWERS)
    assert sum(group["samples"] for group in vqa["groups"]["objects seen"]) == 14
    assert set(results["tasks"]["pope/random"]["values"]) == {"accuracy", "F1", "precision", "recall", "yes ratio"}
    lines = [json.loads(line) for line in (finished / "vqav2-val/samples.jsonl").read_text().splitlines()]
    questions = json.loads((benchmarks / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    assert [line["prompt"] for line in lines] == [one["question"] for one in questions]
    submission = json.loads((finished / "vqav2-val/submission.json").read_text())
    assert submission == [{"question_id": int(line["id"]), "answer": line["answer"]} for line in lines]
    assert str(benchmarks) not in "".join(path.read_text() for path in finished.rglob("results.json"))


def test_a_finished_run_asks_nothing(out, units, load, asked, finished):
    results = evaluate(units, load, out, OPTIONS)
    assert not sum(asked)
    assert contents(out) == contents(finished)
    assert results == json.loads((out / "results.json").read_text())


def test_a_killed_run_is_resumed(out, units, load, asked, finished):
    """With a cut line and without results; no sample has two answers, and no image is refined again."""
    path = out / "vqav2-val/answers-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:-5])
    shutil.rmtree(out / "refcoco-val")
    for name in ("results.json", "report.html", "vqav2-val/results.json"):
        (out / name).unlink()
    objects = {path: path.stat().st_mtime_ns for path in (out / "objects").rglob("*.safetensors")}
    evaluate(units, load, out, OPTIONS)
    assert asked == [8, 1]
    assert contents(out) == contents(finished)
    numbers = [json.loads(line)["sample"] for line in path.read_text().splitlines()]
    assert sorted(numbers) == list(range(14))
    assert objects
    assert objects == {path: path.stat().st_mtime_ns for path in (out / "objects").rglob("*.safetensors")}


def test_several_processes_find_what_one_finds(micro, units, tmp_path, finished):
    """Two threads in their place; the slow test starts processes."""
    barrier, errors = threading.Barrier(2, timeout=100), []

    def run(index):
        try:
            evaluate(units, lambda: Lyrics(*micro), tmp_path / "out", OPTIONS, ranks=Ranks(index, 2, barrier.wait))
        except BaseException as error:  # noqa: BLE001
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert contents(tmp_path / "out") == contents(finished)
    files = [path.read_bytes().count(b"\n") for path in sorted((tmp_path / "out/vqav2-val").glob("answers-*"))]
    assert files == [8, 6]


def test_another_output_is_refused(out, units, benchmarks, load, finished, tmp_path, with_every_option):
    """Data, model or options that differ are named, and nothing is changed."""

    def refused(message, words=units, model=load, **changes):
        with pytest.raises(ValueError, match=message):
            evaluate(words, model, out, EvaluationOptions(**{**vars(OPTIONS), **changes}))
        assert contents(out) == contents(finished)

    refused(r"other options \(decoding max_new_tokens 3 instead of 4\) for vqav2/val", max_new_tokens=4)
    refused(r"decoding num_beams 1 instead of 2", num_beams=2)
    refused(r"other samples \(.*\) for vqav2/val", limit=3)
    refused(r"other options \(prompt \{question\} instead of", parse_units(["vqav2"], benchmarks))
    refused(r"another model \(fingerprint", model=lambda: Lyrics(*with_every_option))
    other = shutil.copytree(benchmarks, tmp_path / "other")
    path = other / "vqav2/v2_mscoco_val2014_annotations.json"
    path.write_text(path.read_text().replace('"answer": "yes"', '"answer": "Yes"', 1))
    refused(r"other samples \(the first other one is sample \d+\)", parse_units(["vqav2"], other, PROMPTS[:1]))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("x")
    for place, message in (("notes", "is not the folder of an evaluation"), ("notes/mine.txt", "is a file")):
        with pytest.raises(ValueError, match=message):
            evaluate(units, load, tmp_path / place, OPTIONS)


def test_pictures_that_cannot_be_read_fail_alone(tmp_path, load):
    shutil.copy(SCENE_PICTURE, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(bytes(SCENE_PICTURE.stat().st_size))
    dump_lines(
        tmp_path / "rows.jsonl", [{"image": name, "question": "What?", "answer": "x"} for name in ("a.png", "b.png")]
    )
    units = parse_units([f"custom:{tmp_path / 'rows.jsonl'}"])
    results = evaluate(units, load, tmp_path / "out", OPTIONS)["tasks"]["custom/all"]
    assert (results["samples"], results["scored"], results["failed"]) == (2, 1, 1)
    lines = (tmp_path / "out/custom-all/samples.jsonl").read_text().splitlines()
    assert "b.png" in json.loads(lines[1])["error"]
    shutil.copy(SCENE_PICTURE, tmp_path / "b.png")
    results = evaluate(units, load, tmp_path / "out", OPTIONS)["tasks"]["custom/all"]
    assert (results["scored"], results["failed"]) == (2, 0), "what failed is asked again"


def test_answers_alone_need_no_library_of_a_metric(tmp_path, load, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    shutil.copy(SCENE_PICTURE, tmp_path / "a.png")
    dump_lines(tmp_path / "rows.jsonl", [{"image": "a.png", "question": "What?", "answer": "x"}])
    units = parse_units([f"custom:{tmp_path / 'rows.jsonl'}"], metric="anls")
    with pytest.raises(ImportError, match="rapidfuzz"):
        evaluate(units, load, tmp_path / "scored", OPTIONS)
    results = evaluate(units, load, tmp_path / "out", replace(OPTIONS, answers_only=True))
    assert results["tasks"]["custom/all"]["score"] is None


def test_choices_are_shown(tmp_path, load):
    shutil.copy(SCENE_PICTURE, tmp_path / "a.png")
    row = {"image": "a.png", "question": "Which?", "answer": "two", "choices": ["one", "two"]}
    dump_lines(tmp_path / "rows.jsonl", [row])
    (unit,) = parse_units([f"custom:{tmp_path / 'rows.jsonl'}"])
    assert read_task(unit).samples[0].prompt.startswith("Which?\nA. one\nB. two\nAnswer with the option's letter")
    (unit,) = parse_units([f"custom:{tmp_path / 'rows.jsonl'}"], prompts=["custom={question} Briefly."])
    assert read_task(unit).samples[0].prompt == "Which? Briefly."


def test_damaged_answers_are_named(out, units, load):
    path = out / "vqav2-val/answers-0.jsonl"
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(ValueError, match=r"answers-0.jsonl, line 15 is damaged"):
        evaluate(units, load, out, OPTIONS)
    (out / "run.json").write_text("{cut")
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        evaluate(units, load, out, OPTIONS)


# ---------------------------------------------------------------- the report


def test_the_report_needs_nothing_else_and_escapes_what_a_model_says(out, units, load):
    """No address but `data:`, and answers and ids of anybody stay text."""
    path = out / "vqav2-val/answers-0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    path.write_text("".join(json.dumps({**line, "answer": evil}) + "\n" for line in lines))
    evaluate(units, load, out, OPTIONS)
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:|#)\w", page.replace("&lt;img src=x", ""))
    assert "default-src 'none'" in page
    assert page.count("data:image/jpeg;base64,") >= 12
    for text in ("By question type", "By objects seen", "By size of the box", "Worst samples", "prefers-color-scheme"):
        assert text in page


# ---------------------------------------------------------------- two models


def test_a_comparison_finds_what_changed(out, finished, capsys, tmp_path):
    """A run is no better than itself; one with better answers is, and the samples are named."""
    for unit in compare_runs(finished, out).units:
        assert (unit.difference, unit.p_value, unit.better, unit.worse) == (0.0, 1.0, [], [])
    path = out / "vqav2-val/samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**line, "answer": line["answers"][0], "score": 1.0} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    unit = compare_runs(finished, out).units[0]
    before = sum(line["score"] for line in lines) / len(lines)
    assert unit.difference == pytest.approx(100 * (1 - before))
    assert unit.p_value < 0.01
    assert unit.verdict == "better"
    assert [one["id"] for one in unit.better] == [line["id"] for line in lines if line["score"] < 1]
    assert compare_runs(out, finished).units[0].verdict == "worse"
    assert main(["evaluate", "--compare", str(finished), str(out), "--out", str(tmp_path / "both")]) == 0
    assert "vqav2/val: " in capsys.readouterr().out
    page = (tmp_path / "both/comparison.html").read_text()
    assert "better" in page
    assert json.loads((tmp_path / "both/comparison.json").read_text())["tasks"]["vqav2/val"]["verdict"] == "better"


def test_a_comparison_of_something_else_is_refused(finished, tmp_path, capsys):
    assert main(["evaluate", "--compare", str(finished), str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


# ---------------------------------------------------------------- the judge


class JudgeStub(http.server.BaseHTTPRequestHandler):
    """A server of OpenAI's form that finds the reference twice as good, and counts."""

    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        self.asked.append((self.path, body["model"], self.headers["Authorization"], text))
        scores = "8 4" if "[Assistant 1]\nA dog." in text else "4 8"
        reply = json.dumps({"choices": [{"message": {"content": f"{scores}\nBecause."}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), JudgeStub) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        JudgeStub.asked.clear()
        yield f"http://127.0.0.1:{found.server_port}/v1"
        found.shutdown()


def test_a_judge_is_asked_in_both_orders_and_once(server, tmp_path, load):
    units = parse_units([f"llava_bench:{write('llava_bench', tmp_path)}"])
    without = evaluate(units, load, tmp_path / "out", OPTIONS)["tasks"]["llava_bench/test"]
    assert (without["score"], without["samples"]) == (None, 1)
    judge = ServerJudge(server, "stub-1", "secret")
    for _ in range(2):
        options = EvaluationOptions(**{**vars(OPTIONS), "judge": judge})
        results = evaluate(units, load, tmp_path / "out", options)["tasks"]["llava_bench/test"]
        assert results["score"] == 50.0
        assert results["judge"] == "stub-1"
    (path, model, key, first), (*_, second) = JudgeStub.asked
    assert (path, model, key) == ("/v1/chat/completions", "stub-1", "Bearer secret")
    assert "[Context]\nA dog runs." in first
    assert first.index("A dog.\n") < first.index("[Assistant 2]") < second.index("A dog.\n")
    odd = FunctionJudge("odd", lambda text: "no numbers")
    results = evaluate(units, load, tmp_path / "out", EvaluationOptions(**{**vars(OPTIONS), "judge": odd}))
    assert results["tasks"]["llava_bench/test"]["score"] is None
    assert results["tasks"]["llava_bench/test"]["unparseable"] == 1
    assert "secret" not in "".join(path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*.json*"))


def test_a_judge_that_does_not_answer_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot be reached"):
        ServerJudge("http://127.0.0.1:9/v1", "x")("Which?")
    for url, name in (("file:///etc/passwd", "x"), ("http://127.0.0.1:9", "")):
        with pytest.raises(ValueError, match=r"must begin with http|needs the name"):
            ServerJudge(url, name)


# ---------------------------------------------------------------- the command, on the shipped model


def test_the_command_agrees_with_the_micro_recipe(benchmarks, tmp_path, capsys):
    """On the same images, the same questions are right. The scores are in the model's card."""
    model = shutil.copytree(Path(str(Lyrics.from_pretrained().model.name_or_path)), tmp_path / "model")
    (model / "README.md").unlink()
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    words = ["evaluate", "vqav2", "refcoco/val", "pope", "--model", str(model), "--card", *prompts]
    assert main([*words, "--data", str(benchmarks), "--out", str(tmp_path / "out"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["tasks"]
    assert len(results) == 5
    card = (model / "README.md").read_text()
    assert f"| VQAv2, val | accuracy | {round(results['vqav2/val']['score'], 1)} |" in card

    cases = draw_cases(2, kinds=SHORT_ANSWERS)
    folder = benchmarks / "vqav2/val2014"
    for case in cases:
        case.scene.__dict__["image"] = LyricsProcessor.from_pretrained(model, refiner=False).load_pictures(
            [folder / f"COCO_val2014_{case.number:012d}.jpg"]
        )[0]
    with Lyrics.from_pretrained(model) as assistant:
        outcomes = answer_cases(assistant.model, assistant.processor, cases)
    lines = (tmp_path / "out/vqav2-val/samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == [outcome.answer for outcome in outcomes]
    assert [json.loads(line)["score"] for line in lines] == [float(outcome.correct) for outcome in outcomes]


def test_options_without_effect_are_refused_before_the_run(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"image": str(SCENE_PICTURE), "question": "What?", "answer": "a ring"}))
    command = ["evaluate", f"custom:{rows}", "--out", str(tmp_path / "out")]
    for options, message in (
        (["--refiner", "OTHER"], "--refiner has an effect on retrieval only"),
        (["--card"], "--card writes into the model's folder, and the micro model is none"),
        (["--card", "--model", "me/model"], "and me/model is none"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
