"""`transformers serve` answers about an image with the shipped model: whole and streamed, over the loopback."""

import base64
import json
import socket
import threading
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from transformers.cli.serve import Serve

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE

for name in ("fastapi", "openai"):
    pytest.importorskip(name)
uvicorn = pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def address():
    """Address of the server; requests wait in the queue of its socket until it is ready."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Serve, "start_server", lambda self: None)  # it would open a socket only later
        application = Serve(str(MICRO_CHECKPOINT), device="cpu", non_blocking=True).server.config.app
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def post(address, stream):
    """Ask about the scene in OpenAI's format, and return the body of the answer."""
    picture = f"data:image/png;base64,{base64.b64encode(SCENE_PICTURE.read_bytes()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": "What color is the ring?"},
    ]
    question = {"model": str(MICRO_CHECKPOINT), "messages": [{"role": "user", "content": content}], "max_tokens": 20}
    body = json.dumps(question | {"stream": stream}).encode()
    request = Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=120) as answer:
        return answer.read().decode()


def test_an_answer_is_whole(address):
    choice = json.loads(post(address, stream=False))["choices"][0]
    assert choice["message"]["content"].strip() == "purple"
    assert choice["finish_reason"] == "stop"


def test_an_answer_is_streamed(address):
    lines = [line.removeprefix("data: ") for line in post(address, stream=True).splitlines() if line]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas).strip() == "purple"
    assert len(deltas) > 1
