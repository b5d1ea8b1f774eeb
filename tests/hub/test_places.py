"""Names of models that are no folder: loaded from the cache without a network, or an error at once."""

import socketserver
import threading

import pytest

from .server import run_hub
from .test_hub import run_python

ASK = """
import contextlib, io, json, sys
from lyrics import SCENE_PICTURE
from lyrics_cli.main import main
def run(*arguments):
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        code = main(list(arguments))
    return code, error.getvalue().splitlines()[-1:]
print(json.dumps([run("refine", str(SCENE_PICTURE), "--model", name) for name in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def home(saved, tmp_path_factory):
    """A folder with the cache of a user who has loaded `me/tiny`, and has misspelled it."""
    folder = tmp_path_factory.mktemp("user")
    with run_hub() as hub:
        hub.add("me/tiny", saved)
        found, misspelled = run_python(hub, folder, "-c", ASK, "me/tiny", "me/tinny")
        asked = [line for line in hub.requests if "me/tinny" in line]
    assert found[0] == 0
    assert misspelled[0] == 2
    assert "me/tinny is not a local folder and is not a valid model identifier" in misspelled[1][0]
    assert asked[0] == "HEAD /me/tinny/resolve/main/config.json"
    assert len(asked) <= 3
    return folder


@pytest.fixture
def unreachable():
    """A server on the loopback address that closes every connection; `requests` holds one entry for each."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            server.requests.append(self.request.recv(65536))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_misspelled_name_without_a_network(unreachable, tmp_path):
    """One request, which is not repeated."""
    ((code, (line,)),) = run_python(unreachable, tmp_path, "-c", ASK, "nowhere")
    assert code == 2
    assert line.startswith("lyrics refine: error: nowhere: there is no such directory, no model of this name is cached")
    assert f"the Hub ({unreachable.endpoint}) cannot be reached: " in line
    assert len(unreachable.requests) == 1


def test_offline(home, unreachable):
    """What is cached is loaded, and what is not is an error; nobody is asked."""
    (code, _), (misspelled, (line,)) = run_python(
        unreachable, home, "-c", ASK, "me/tiny", "me/tinny", HF_HUB_OFFLINE="1"
    )
    assert (code, misspelled) == (0, 2)
    assert "me/tinny: there is no such directory, no model of this name is cached" in line
    assert "cannot be reached: offline mode is on (HF_HUB_OFFLINE)" in line
    assert unreachable.requests == []
