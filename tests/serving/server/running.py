"""Servers in a thread on a free port of the loopback, and requests to them without a client library."""

import base64
import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from lyrics import SCENE_PICTURE
from lyrics.serving.server import ServerLimits, bind_socket, create_application
from lyrics.serving.server.http_server import create_server

NAME = "lyrics-micro"
CHAT, OBJECTS = "/v1/chat/completions", "/v1/objects"


@dataclass
class Reply:
    """An answer of the server."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The error, which must have OpenAI's form."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == ("invalid_request_error" if self.status < 500 else "server_error")
        assert error["message"]
        return error

    @property
    def events(self):
        """The server-sent events of a complete stream."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]


class RunningServer:
    """A server with its port."""

    def __init__(self, server, port):
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def send(self, method, path, body=None, headers=None):
        """Send a request with raw bytes."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.send("GET", path, headers=headers)

    def post(self, path, content, **headers):
        """Send JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, {"Content-Type": "application/json", **headers})


@contextmanager
def running(assistant, limits=None, **options):
    """A server that answers with `assistant`, until the block ends."""
    limits = limits or ServerLimits()
    bound = bind_socket("127.0.0.1", 0)
    bound.listen()  # requests wait in its queue until the server has started
    application = create_application(assistant, model_name=NAME, limits=limits, **options)
    server = create_server(application, limits, log_level="warning")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="server")
    thread.start()
    try:
        yield RunningServer(server, bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def data_url(picture=SCENE_PICTURE, kind="PNG"):
    """Data URL of a file, of bytes or of a PIL image."""
    if isinstance(picture, Image.Image):
        file = BytesIO()
        picture.save(file, kind)
        picture = file.getvalue()
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def about(question, *urls):
    """Messages of one question about images."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def chat(question="What color is the ring?", *urls, **fields):
    """Body of a request."""
    return {"model": NAME, "messages": about(question, *(urls or (data_url(),))), **fields}
