"""`lyrics ask` about several images, from standard input, on a terminal, and with a file of questions."""

import io
import json
import os
import shutil
import sys

import pytest

from lyrics import SCENE_PICTURE, Lyrics
from lyrics_cli.main import main

from ..failpoints import Failpoints

COLOR, WHERE = "What color is the ring?", "Where is the red star?"


@pytest.fixture(scope="module")
def answers():
    """The answers to both questions."""
    with Lyrics.from_pretrained() as assistant:
        return {question: assistant.ask(SCENE_PICTURE, question).text for question in (COLOR, WHERE)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of images, where the command runs."""
    shutil.copy(SCENE_PICTURE, tmp_path / "scene.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_pictures_and_folders(folder, answers, capsys):
    """An image that cannot be read is named, and the others are answered."""
    (folder / "more").mkdir()
    shutil.copy("scene.png", "more/a.png")
    (folder / "more/b.png").write_bytes(b"no image")
    assert main(["ask", "scene.png", "more", COLOR, "--json"]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [one["image"] for one in found] == ["scene.png", "more/a.png"]
    assert [one["answer"] for one in found] == [answers[COLOR]] * 2
    assert "more/b.png" in captured.err


def test_standard_input(answers, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SCENE_PICTURE.read_bytes())))
    assert main(["ask", "-", COLOR]) == 0
    assert f"Answer: {answers[COLOR]}\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{WHERE}\n"))
    assert main(["ask", str(SCENE_PICTURE), "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answers[WHERE]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["ask", "-", COLOR]) == 2
    assert "no image on standard input" in capsys.readouterr().err


def test_an_answer_streams_on_a_terminal(answers, capsys, monkeypatch):
    """Piece by piece, and the whole is the answer."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    written = []
    write = sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: written.append(text) or write(text), raising=False)
    assert main(["ask", str(SCENE_PICTURE), WHERE]) == 0
    assert f"Answer: {answers[WHERE]}\nObjects (" in capsys.readouterr().out
    assert len([piece for piece in written[: written.index("\n")] if piece]) > 5


# ---------------------------------------------------------------- files of questions

ROWS = [
    {"image": "scene.png", "question": COLOR, "id": "first"},
    {"image": "none.png", "question": COLOR},
    {"image": "../scene.png", "question": COLOR},
    {"images": ["scene.png"], "messages": [{"role": "user", "content": WHERE}]},
    {"image": "scene.png"},
]


@pytest.fixture
def asked(folder, capsys):
    """What the command wrote for the rows."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert main(["ask", "--batch", "rows.jsonl", "--out", "out.jsonl"]) == 2
    captured = capsys.readouterr()
    assert "5 rows, 3 failed" in captured.out
    assert all(f"row {row}: " in captured.err for row in (2, 3, 5))
    return (folder / "out.jsonl").read_text()


def test_a_file_of_questions(asked, answers, folder, capsys, monkeypatch):
    """One line for each row, in order; a killed run is completed, and a complete one is left alone."""
    lines = [json.loads(line) for line in asked.splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5]
    assert (lines[0]["id"], lines[0]["answer"]) == ("first", answers[COLOR])
    assert lines[3]["answer"] == answers[WHERE]
    assert lines[3]["boxes"][0]["label"] == "red star"
    assert "none.png" in lines[1]["error"]
    assert "lies outside" in lines[2]["error"]
    assert "no conversation" in lines[4]["error"]
    out = folder / "out.jsonl"
    for kept in (asked[: asked.index("\n") + 1], asked[: len(asked) - 9], asked):
        out.write_text(kept)
        assert main(["ask", "--batch", "rows.jsonl", "--out", "out.jsonl", "--json"]) == 2
        assert json.loads(capsys.readouterr().out) == {"rows": 5, "failed": 3, "out": "out.jsonl"}
        assert out.read_text() == asked


def ask_again(capsys, *more):
    """The exit code and the last line of output of the command."""
    code = main(["ask", "--batch", "rows.jsonl", "--out", "out.jsonl", *more])
    return code, capsys.readouterr().out.splitlines()[-1]


def test_failed_rows_are_asked_again(asked, answers, folder, capsys):
    """Only when it is wished: a repaired row gets its answer in its place, and the other lines stay as they are."""
    shutil.copy("scene.png", "none.png")
    hint = "(their lines say why; --retry-failures tries them again): out.jsonl"
    assert ask_again(capsys) == (2, f"5 rows, 3 failed {hint}")
    assert (folder / "out.jsonl").read_text() == asked
    assert ask_again(capsys, "--retry-failures") == (2, f"5 rows, 2 failed {hint}")
    lines, before = (text.splitlines() for text in ((folder / "out.jsonl").read_text(), asked))
    assert [*lines[:1], *lines[2:]] == [*before[:1], *before[2:]]
    assert json.loads(lines[1])["answer"] == answers[COLOR]
    os.remove("none.png")  # what was answered is not asked again
    assert ask_again(capsys, "--retry-failures") == (2, f"5 rows, 2 failed {hint}")
    assert (folder / "out.jsonl").read_text().splitlines() == lines
    assert {path.name for path in folder.iterdir()} == {"scene.png", "rows.jsonl", "out.jsonl", "out.jsonl.run.json"}


def test_failed_rows_of_an_output_that_was_not_completed(asked, folder, capsys):
    """They are asked together with the rows that have no line."""
    shutil.copy("scene.png", "none.png")
    out = folder / "out.jsonl"
    assert ask_again(capsys, "--retry-failures")[0] == 2
    whole = out.read_text()
    out.write_text("".join(asked.splitlines(keepends=True)[:3]))
    assert ask_again(capsys, "--retry-failures")[0] == 2
    assert out.read_text() == whole
    os.remove(out)
    (folder / "out.jsonl.retries").write_text(whole.splitlines(keepends=True)[1])  # of the removed output
    os.remove("none.png")
    assert ask_again(capsys, "--retry-failures")[0] == 2
    assert out.read_text() == asked


@pytest.mark.parametrize("options", [[], ["--retry-failures"]])
def test_a_killed_retry_loses_nothing(asked, folder, capsys, options):
    """Killed between two answers, within a line. The answered row is merged, though it would now fail."""
    shutil.copy("scene.png", "none.png")
    out, retries = folder / "out.jsonl", folder / "out.jsonl.retries"
    assert ask_again(capsys, "--retry-failures")[0] == 2
    whole = out.read_text()
    out.write_text(asked)
    retries.write_text(whole.splitlines(keepends=True)[1] + '{"row": 3, "err')
    os.remove("none.png")
    assert ask_again(capsys, *options)[0] == 2
    assert out.read_text() == whole
    assert not retries.exists()


RETRY = """
os.chdir(folder)
main(["ask", "--batch", "rows.jsonl", "--out", "out.jsonl", "--retry-failures"])
"""


def test_a_retry_that_is_killed_while_it_writes(asked, folder, capsys):
    """Before and after the output is replaced: it is the old one or the new one, and the next run completes it."""
    shutil.copy("scene.png", "none.png")
    setup = "import os, torch; torch.set_num_threads(1); import lyrics; from lyrics_cli.main import main"
    out, kept = folder / "out.jsonl", set(folder.iterdir())

    def retry(kill_at=None):
        for path in set(folder.iterdir()) - kept:
            path.unlink()
        out.write_text(asked)
        return failpoints.run(RETRY, folder, kill_at)

    with Failpoints(setup) as failpoints:
        run = retry()
        assert run.error is None
        whole = out.read_text()
        replaced = next(number for number, one in enumerate(run.operations, 1) if one.startswith("os.rename"))
        for kill_at, left in ((replaced, asked), (replaced + 1, whole)):
            assert retry(kill_at).killed
            assert out.read_text() == left
            assert ask_again(capsys, "--retry-failures")[0] == 2
            assert out.read_text() == whole
            assert not (folder / "out.jsonl.retries").exists()


def test_an_output_of_something_else_is_refused(asked, folder, capsys):
    """Other rows, options or models: the difference is named, and the file stays as it is."""

    def refused(*more):
        assert main(["ask", "--batch", "rows.jsonl", "--out", "out.jsonl", *more]) == 2
        assert (folder / "out.jsonl").read_text() == asked
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "other options (max_new_tokens 256 instead of 9, num_beams 1 instead of 2)" in refused(
        "--max-new-tokens", "9", "--num-beams", "2"
    )
    assert "another model (dtype float32 instead of bfloat16" in refused("--dtype", "bfloat16")
    rows = [*ROWS[:1], ROWS[0], *ROWS[2:]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "other rows (the first other one is row 2)" in refused()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    assert "other rows (5 instead of 3)" in refused()
    os.remove(folder / "out.jsonl.run.json")
    assert "was not written by `lyrics ask --batch`" in refused()
