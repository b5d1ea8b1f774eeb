"""Wrong arguments of every command: exit code 2, one line, before the work and without traces of it."""

import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsForConditionalGeneration, LyricsProcessor
from lyrics.processing_lyrics import VisualObjects
from lyrics_cli.main import main

ASK = ["ask", "SCENE", "What?", "--model", "MICRO"]
REFINE = ["refine", "SCENE", "--model", "MICRO"]
STORE = ["refine-dataset", "FOLDER", "--model", "MICRO", "--out"]
TRAIN = ["--model", "MICRO", "--output_dir", "FOLDER/run", "--bf16", "no", "--report_to", "none"]

WRONG = [
    ([*ASK[:2], "", *ASK[3:]], "the question is empty"),
    ([*ASK[:2], " \n", *ASK[3:]], "the question is empty"),
    (["ask", "none.png", *ASK[2:]], "The image 'none.png' does not exist"),
    (["ask", "EMPTY", *ASK[2:]], "There is no image in"),
    (["ask", "SCENE", *ASK[1:], "--save", "FOLDER/a.png"], "belongs to one image"),
    (["ask", "FOLDER", *ASK[2:], "--why", "FOLDER/a.png"], "belongs to one image"),
    ([*ASK, "--temperature", "-1"], "temperature must be a number from 0 to 100, got -1.0"),
    ([*ASK, "--top-p", "0.5"], "--top-p 0.5 needs a --temperature above 0"),
    ([*ASK, "--seed", "3"], "--seed 3 needs a --temperature above 0"),
    ([*ASK, "--num-beams", "2", "--temperature", "1"], "choose one of both"),
    (["ask", "--batch", "FOLDER/none", "--out", "FOLDER/a.jsonl", *ASK[3:]], "No such file"),
    (["ask", "--batch", "FILE", "--out", "FOLDER/a.jsonl", *ASK[3:]], "line 1 is not JSON"),
    (["ask", "--batch", "NOROWS", "--out", "FOLDER/a.jsonl", *ASK[3:]], "holds no question"),
    (["ask", "--batch", "PAIRS", "--out", "FOLDER/no/a.jsonl", *ASK[3:]], "cannot be written: there is no folder"),
    (["ask", "--batch", "PAIRS", "--out", "PAIRS", *ASK[3:]], "is the file of questions itself"),
    (["ask", "--batch", "PAIRS", "--out", "FILE", *ASK[3:]], "was not written by `lyrics ask --batch`"),
    (["chat", "none.png", "--model", "MICRO"], "The image 'none.png' does not exist"),
    (["chat", "--model", "/no/such/place"], "there is no such directory, and it is not a Hub id"),
    (["chat", "--model", "nowhere"], "nowhere: there is no such directory, no model of this name is cached"),
    (["search", "FOLDER", "a ring", "--model", "nowhere"], "no model of this name is cached"),
    (["chat", "--model", "MICRO", "--top-p", "0.5"], "--top-p 0.5 needs a --temperature above 0"),
    ([*ASK[:4], "/no/such/place"], "there is no such directory, and it is not a Hub id"),
    ([*ASK, "--save", "FOLDER/none/a.png"], "cannot be written: there is no folder"),
    ([*ASK, "--save", "FOLDER"], "is a folder"),
    ([*ASK, "--save", "FOLDER/a.xyz"], "no image can be written as '.xyz'"),
    ([*ASK, "--save", "FOLDER/a"], "no image can be written as ''"),
    ([*ASK, "--save", "FOLDER/a.mpg"], "no image can be written as '.mpg'"),
    ([*ASK, "--save", "SCENE"], "is the image itself, which is not overwritten"),
    ([*ASK, "--why", "FOLDER/none/a.png"], "--why"),
    ([*ASK, "--save", "FOLDER/a.png", "--why", "FOLDER/a.png"], "--save and --why are the same file"),
    ([*ASK, "--save", "FOLDER/a.png", "--font", "FILE"], "cannot be read"),
    ([*REFINE, "--out", "FOLDER/seen", "--font", "FOLDER/none.ttf"], "none.ttf cannot be read"),
    ([*ASK, "--device", "meta"], "cannot run on device 'meta'"),
    ([*ASK, "--device", "toaster"], "cannot run on device 'toaster'"),
    ([*ASK, "--device", "cuda:99"], "cannot run on device 'cuda:99'"),
    ([*ASK, "--objects", "FOLDER/none"], "No such file"),
    ([*ASK, "--objects", "SCENE"], "is not a file of visual objects"),
    ([*ASK, "--store", "FOLDER/none"], "none"),
    ([*REFINE, "--tags", " , "], "--tags ' , ' names no word to look for"),
    ([*REFINE, "--tags", ""], "--tags '' names no word to look for"),
    ([*REFINE, "--out", "FILE"], "is a file, and not a folder"),
    ([*REFINE, "--device", "meta"], "cannot run on device 'meta'"),
    ([*STORE, "FILE"], "is a file, and not the folder of a store"),
    ([*STORE, "FOLDER/store", "--device", "meta"], "cannot run on device 'meta'"),
    (["refine-dataset", "shapes:0", *STORE[2:], "FOLDER/store"], "'shapes:0' has no rows: COUNT must be at least 1"),
    (["refine-dataset", "FOLDER/none", *STORE[2:], "FOLDER/store"], "There is no"),
    (["store", "verify", "FILE"], "FILE"),
    (["init", "--out", "FILE"], "is not an empty directory"),
    (["convert", "MICRO", "--out", "FOLDER"], "is not an empty directory"),
    (["merge", "FOLDER/none", "--out", "FOLDER/merged"], "none"),
    (["evaluate"], "Which tasks? Name some (`lyrics evaluate --list`)"),
    (["evaluate", "vqav2"], "Where shall the results go? Give --out DIR"),
    (["evaluate", "vqa2", "--out", "FOLDER/out"], "There is no task 'vqa2'. Did you mean vqav2"),
    (["evaluate", "pope", "--data", "FOLDER", "--out", "FOLDER/out"], "pope/random needs github.com/RUCAIBox/POPE"),
    (["evaluate", "pope:FOLDER", "--out", "FILE"], "is a file, and not a folder"),
    (["evaluate", "pope:FOLDER", "--out", "FOLDER"], "is not the folder of an evaluation"),
    (["evaluate", "custom:x", "--out", "FOLDER/out", "--judge", "ftp://x"], "must begin with http"),
    (["evaluate", "custom:PAIRS", "--out", "FOLDER/out", "--metric", "bleu"], "There is no metric 'bleu'"),
    (["evaluate", "--compare", "FOLDER", "EMPTY"], "holds no results"),
    (["sft", "--config", "none", *TRAIN], "There is no file and no recipe 'none'"),
    (["sft", "--config", "BROKEN", *TRAIN], "broken.yaml is not YAML"),
    (["dpo", "--config", "BROKEN", *TRAIN], "broken.yaml is not YAML"),
    (["pretrain", "--config", "BROKEN", "--output_dir", "FOLDER/run"], "broken.yaml is not YAML"),
    (["sft", "--config", "LIST", *TRAIN], "must contain a YAML mapping"),
    (["sft", "--train_data", "chats:0", *TRAIN], "'chats:0' has no rows: COUNT must be at least 1"),
    (["dpo", "--config", "smoke", "--train_data", "PAIRS", "--output_dir", "FOLDER/run"], "have no 'chosen' and no"),
    (["dpo", "--train_data", "shapes:0", *TRAIN], "'shapes:0' has no rows: COUNT must be at least 1"),
    (["grpo", "--config", "BROKEN", *TRAIN], "broken.yaml is not YAML"),
    (["grpo", "--train_data", "shapes:0", *TRAIN], "'shapes:0' has no rows: COUNT must be at least 1"),
    (
        ["grpo", "--train_data", "chats:4", *TRAIN, "--rewards", "iuo"],
        "There is no reward 'iuo'; known are iou, format",
    ),
]


@pytest.fixture
def names(tmp_path):
    """Folder of the test, with what the arguments name."""
    shutil.copy(SCENE_PICTURE, tmp_path / "scene.png")
    (tmp_path / "FILE").write_text("a text")
    (tmp_path / "pairs.jsonl").write_text('{"images": ["scene.png"], "prompt": "What?"}')
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: }")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "norows.jsonl").write_text("\n")
    (tmp_path / "empty").mkdir()
    found = {"FOLDER": tmp_path, "EMPTY": tmp_path / "empty", "NOROWS": tmp_path / "norows.jsonl"}
    found |= {"FOLDER": tmp_path, "SCENE": tmp_path / "scene.png", "FILE": tmp_path / "FILE", "MICRO": MICRO_CHECKPOINT}
    found["PAIRS"] = tmp_path / "pairs.jsonl"
    return found | {"BROKEN": tmp_path / "broken.yaml", "LIST": tmp_path / "list.yaml"}


def insert(names, argument):
    """An argument with the path in place of a name at its beginning."""
    head, slash, tail = argument.partition("/")
    return f"{names[head]}{slash}{tail}" if head in names else argument


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: " ".join(value)[:60].strip() or None)
def test_wrong_arguments(names, tmp_path, capsys, monkeypatch, arguments, message):
    def begin(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(LyricsProcessor, "refine", begin)
    monkeypatch.setattr(LyricsForConditionalGeneration, "generate", begin)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([insert(names, argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("lyrics ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"lyrics {arguments[0]}: error: ")
    assert message in lines[0]
    assert "Traceback" not in captured.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_image_that_is_given_twice_gets_two_results(names, tmp_path, capsys):
    arguments = ["refine", "SCENE", "SCENE", "--model", "MICRO", "--json", "--out", "FOLDER/seen"]
    assert main([insert(names, argument) for argument in arguments]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert len(seen) == 2
    assert seen[0]["objects"] == seen[1]["objects"]
    assert VisualObjects.load(seen[0]["data"]) == VisualObjects.load(seen[1]["data"])
    assert len(list((tmp_path / "seen").iterdir())) == 4


def test_names_cannot_steer_the_terminal(names, tmp_path, capsys):
    """File names with control characters are shown with escapes, in results and in errors."""
    odd = tmp_path / "a\x1b[2J\nb.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(odd)
    paths = [str(odd), str(tmp_path / "gone\x1b[2J.png")]
    assert main(["refine", *paths, "--model", str(MICRO_CHECKPOINT), "--out", str(tmp_path / "seen")]) == 2
    captured = capsys.readouterr()
    assert "a\\x1b[2J\\nb.png" in captured.out
    assert "gone\\x1b[2J.png' does not exist" in captured.err
    assert main(["store", "verify", str(odd)]) == 2
    captured = (captured, capsys.readouterr())
    assert not any("\x1b" in text for one in captured for text in one)


def test_a_missing_library_is_named_with_its_extra(tmp_path):
    code = "import sys; sys.modules['trl'] = None; from lyrics_cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["sft", "--config", "smoke", "--output_dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'ziya-lyrics[train]'" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_refine_dataset_takes_the_shipped_model_too(names, tmp_path, capsys):
    shutil.copytree(tmp_path, tmp_path / "photos", ignore=lambda _, found: [one for one in found if one != "scene.png"])
    assert main(["refine-dataset", str(tmp_path / "photos"), "--out", str(tmp_path / "store"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pictures"] == 1
    assert "the micro model is used" in captured.err


def test_ask_draws_the_box_of_its_answer(names, tmp_path, capsys):
    """On the shipped model, which answers this with a box."""
    saved = tmp_path / "saved.png"
    assert main(["ask", str(SCENE_PICTURE), "Where is the red star?", "--save", str(saved), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer_boxes"]
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    objects = processor.refine(SCENE_PICTURE)[0]
    drawn = processor.visualize(SCENE_PICTURE, objects, answer["answer"])
    assert Image.open(saved).tobytes() == drawn.tobytes() != processor.visualize(SCENE_PICTURE, objects).tobytes()
