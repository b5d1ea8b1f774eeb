"""`lyrics demo` from its start to Ctrl-C, and its mistakes."""

import os
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from lyrics_cli.main import main

COMMAND = [sys.executable, "-m", "lyrics", "demo"]


def test_the_command_from_its_start_to_its_end():
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=os.environ | {"GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True"},  # the options decide
    )
    line = next(line for line in process.stderr if line.startswith("The page of"))
    assert "lyrics-micro is on http://127.0.0.1:" in line
    assert "gradio.live" not in line
    url = next(word for word in line.split() if word.startswith("http"))
    with urlopen(url) as response:
        assert b"Lyrics" in response.read()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "lyrics demo: interrupted" in rest
    assert "Traceback" not in rest


def test_a_taken_port_and_wrong_examples_are_told_before_a_model_is_loaded(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["demo", "--port", port, "--model", "/no/such/place"]) == 2
        assert f"Cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    assert main(["demo", "--examples", str(tmp_path), "--model", "/no/such/place"]) == 2
    assert "holds no image" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "warnings"), [(("--host", "0.0.0.0"), 1), (("--share",), 1), ((), 0)])
def test_a_page_that_others_reach_warns(capsys, option, warnings):
    assert main(["demo", "--port", "0", "--model", "/no/such/place", *option]) == 2
    assert capsys.readouterr().err.count("WARNING") == warnings
