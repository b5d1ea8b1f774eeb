"""`lyrics serve`: its warnings, its mistakes, and one life of a server from its start to SIGTERM."""

import inspect
import json
import os
import signal
import sys
import threading
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from lyrics_cli.main import build_parser, main
from lyrics_cli.serve import is_loopback

for library in ("starlette", "uvicorn"):
    pytest.importorskip(library)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("LYRICS_API_KEY", raising=False)


def run(capsys, *arguments):
    """Exit code and error output."""
    code = main(["serve", "--port", "0", *arguments])
    return code, capsys.readouterr().err


def test_the_limits_of_the_options_are_those_of_the_server():
    from lyrics.serving.server import ServerLimits

    parsed = vars(build_parser().parse_args(["serve"]))
    defaults = {name: one.default for name, one in inspect.signature(ServerLimits).parameters.items()}
    assert {name: parsed[name] for name in defaults} == defaults


def test_a_server_that_others_reach_without_a_key_warns_loudly(capsys, monkeypatch):
    """The model does not exist, so that nothing is served."""
    wrong = ("--model", "/no/such/place")
    code, error = run(capsys, "--host", "0.0.0.0", *wrong)
    assert code == 2
    assert error.count("WARNING") == 2
    assert "--host 0.0.0.0 is reached by other machines" in error
    assert "there is no such directory" in error
    assert "WARNING" not in run(capsys, "--host", "0.0.0.0", "--api-key", "key", *wrong)[1]
    assert "WARNING" not in run(capsys, "--host", "localhost", *wrong)[1]
    monkeypatch.setenv("LYRICS_API_KEY", "key")
    assert "WARNING" not in run(capsys, "--host", "0.0.0.0", *wrong)[1]


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(address, expected):
    assert is_loopback(address) == expected


def test_mistakes_are_told_before_a_model_is_loaded(capsys, monkeypatch):
    assert "is empty" in run(capsys, "--api-key", " ")[1]
    assert "--served-name is empty" in run(capsys, "--served-name", "")[1]
    assert "There is no address 'nowhere.invalid'" in run(capsys, "--host", "nowhere.invalid")[1]
    monkeypatch.setenv("LYRICS_API_KEY", "")
    assert "the key (--api-key or LYRICS_API_KEY) is empty" in run(capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "must lie in [0, 65535]"),
        (["--port", "http"], "must be a whole number"),
        (["--timeout", "nan"], "must be a number of seconds above 0"),
        (["--max-images", "0"], "must be at least 1"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["serve", *arguments])
    assert message in capsys.readouterr().err


def test_a_server_from_its_start_to_its_end(monkeypatch):
    """The command runs here, where signals arrive; a thread waits until it serves, asks, and ends it."""
    reading, writing = map(os.fdopen, os.pipe(), "rw", (-1, 1))
    answers = []

    def ask_and_end():
        line = next((line for line in reading if line.startswith("Serving ")), "")
        url = next(word for word in line.split() if "://" in word)
        body = json.dumps({"messages": [{"role": "user", "content": "What?"}], "max_tokens": 3}).encode()
        request = Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=300) as response:
                answers.append(json.load(response))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask_and_end)
    thread.start()
    with reading, writing:
        monkeypatch.setattr(sys, "stderr", writing)
        code = main(["serve", "--port", "0", "--served-name", "mine"])
        monkeypatch.undo()
    thread.join()
    assert code == 0
    assert answers[0]["model"] == "mine"
    assert answers[0]["usage"]["completion_tokens"] <= 3
