"""`lyrics chat` through a pipe, and on a terminal with Ctrl-C."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from lyrics import SCENE_PICTURE, Lyrics
from lyrics.assets import EXAMPLE_PICTURE
from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics_cli.main import main

pty = pytest.importorskip("pty")

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
PLAIN = "import sys; sys.modules['prompt_toolkit'] = None; "
CHAT = "import sys; from lyrics_cli.main import main; sys.exit(main(sys.argv[1:]))"


def talk(monkeypatch, capsys, *lines, images=(SCENE_PICTURE,)):
    """Lines of output and of errors of a conversation through a pipe."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert main(["chat", *map(str, images)]) == 0
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()[1:]  # the first says which model is used


def test_a_conversation_through_a_pipe(monkeypatch, capsys, tmp_path):
    """Questions, commands and mistakes; only questions and commands are answered on standard output."""
    with Lyrics.from_pretrained() as assistant:
        chat = assistant.chat(SCENE_PICTURE)
        answers = [chat.ask("What color is the ring?").text, chat.ask("What is this?", boxes=[[10, 10, 99, 99]]).text]
    saved, why, drawn = tmp_path / "chat.jsonl", tmp_path / "why.png", tmp_path / "drawn.png"
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    photo = tmp_path / "photo.png"
    photo.write_bytes(SCENE_PICTURE.read_bytes())
    out, err = talk(
        monkeypatch,
        capsys,
        "/why",
        "What color is the ring?",
        "/box 10 10 99 99",
        "What is this?",
        "/dance",
        "/box 10 10 5 5",
        "/image none.png",
        "/objects now",
        f"/save {saved}",
        f"/save {saved}",
        f"/save {taken}",
        f"/save {tmp_path}/chat.txt",
        f'/why "{why}"',
        f"/draw {drawn}",
        f"/draw {drawn}",
        f"/draw {photo}",
        f"/why {photo}",
        "/objects",
        "/reset",
        "/save again.json",
        "/box 1 1 400 300",
        f"/image {EXAMPLE_PICTURE}",
        "/quit",
        "never read",
    )
    assert out[:3] == [answers[0], "The box goes behind the next question.", answers[1]]
    assert any(line.startswith("Objects (") for line in out)
    assert out[-2:] == [
        "The next question is about this image of 480 x 320 pixels.",
        "The box was one of the image before, and is dropped.",
    ]
    wanted = [
        "there is no answer yet",
        "there is no command /dance",
        "x1 < x2 and y1 < y2, got '10 10 5 5'",
        "'none.png' does not exist",
        "/objects takes nothing",
        "the file exists, and is not overwritten",
        "must end in .jsonl or .json",
        f"/draw {photo}: the file exists, and is not overwritten",
        f"/why {photo}: the file exists, and is not overwritten",
        "has no answer yet",
    ]
    assert len(err) == len(wanted)
    assert all(message in line for message, line in zip(wanted, err, strict=True))
    assert taken.read_text() == "mine"
    assert photo.read_bytes() == SCENE_PICTURE.read_bytes()
    read = read_conversation(open_rows(saved)[0])
    assert [message["content"][-1].get("text") for message in read.messages[1::2]] == answers
    assert json.loads(saved.read_text())["messages"][2]["content"][-1]["type"] == "box"
    for path in (why, drawn):
        Image.open(path).verify()


def test_a_conversation_without_a_picture(monkeypatch, capsys):
    out, err = talk(monkeypatch, capsys, "/objects", "/box 1 1 2 2", "/reset", images=())
    assert out == ["The conversation begins anew."]
    assert [line.split(": ")[1] for line in err] == ["there is no image yet"] * 2


class Terminal:
    """A conversation in a process on a pseudo-terminal."""

    def __init__(self, code, *arguments):
        self.master, slave = pty.openpty()
        command = [sys.executable, "-c", code, *arguments]
        environment = os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=self._take_terminal,
        )
        os.close(slave)
        self.seen = ""
        self._guard = threading.Timer(300, self.process.kill)
        self._guard.start()

    @staticmethod
    def _take_terminal():
        import fcntl
        import termios

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what runs in the background
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C becomes a signal
        termios.tcsetwinsize(0, (24, 100))

    def until(self, text):
        """Read until a text appears; return what came before it."""
        while text not in self.seen:
            try:
                read = os.read(self.master, 65536)
            except OSError:  # the process has ended
                read = b""
            assert read, f"{text!r} does not appear in {self.seen!r}"
            self.seen = ESCAPES.sub("", self.seen + read.decode("utf-8", "replace"))
        before, _, self.seen = self.seen.partition(text)
        return before

    def send(self, text):
        """Type a text."""
        os.write(self.master, text.encode())

    def end(self):
        """Return the exit code."""
        try:
            return self.process.wait()
        finally:
            self._guard.cancel()
            os.close(self.master)


@pytest.mark.parametrize("reader", ["plain", "prompt_toolkit"])
def test_a_terminal_streams_and_ctrl_c_stops_an_answer_and_not_the_session(reader):
    """A hot model writes on and on, until it is stopped."""
    if reader == "prompt_toolkit" and importlib.util.find_spec(reader) is None:
        pytest.skip("prompt_toolkit is not installed")
    code = PLAIN * (reader == "plain") + CHAT
    hot = ("--temperature", "20", "--seed", "1", "--max-new-tokens", "900")
    terminal = Terminal(code, "chat", str(SCENE_PICTURE), *hot)
    terminal.until("Ctrl-D ends.")
    terminal.until(">")
    terminal.send("Describe the picture.\r")
    terminal.until("Looking ...")
    while len(terminal.seen.strip()) < 20:  # pieces arrive
        terminal.seen += os.read(terminal.master, 65536).decode("utf-8", "replace")
    terminal.send("\x03")
    terminal.until("[stopped]")
    terminal.until(">")
    terminal.send("/help\r")
    terminal.until("/quit")
    terminal.until(">")
    terminal.send("\x04")
    assert terminal.end() == 0
