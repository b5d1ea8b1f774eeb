"""Chats over HTTP: with the official client and without, whole and streamed; many clients; clients that leave."""

import json
import shutil
import subprocess
import threading

import pytest
from PIL import Image, ImageOps

from lyrics import SCENE_PICTURE, Lyrics
from lyrics.processing_lyrics.picture_cache import OpenedPicture
from lyrics.serving.server import ServerLimits

from ...threads import run_at_once
from .running import CHAT, NAME, OBJECTS, about, chat, data_url, running

for library in ("starlette", "uvicorn"):
    pytest.importorskip(library)
openai = pytest.importorskip("openai")

COLOR, WHERE, MANY = "What color is the ring?", "Where is the red star?", "How many objects are there?"


@pytest.fixture(scope="module")
def server(assistant):
    with running(assistant) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


class RecordingLyrics(Lyrics):
    """Keeps what was asked: its images, its streams, and the names of the threads that asked."""

    def __init__(self, *parts, **options):
        super().__init__(*parts, **options)
        self.pictures = []
        self.streams = []
        self.threads = set()

    def stream_messages(self, messages, **options):
        self.threads.add(threading.current_thread().name)
        self.pictures += [block["image"] for one in messages for block in one["content"] if block["type"] == "image"]
        self.streams.append(super().stream_messages(messages, **options))
        return self.streams[-1]

    def see(self, image, **options):
        self.threads.add(threading.current_thread().name)
        self.pictures.append(image)
        return super().see(image, **options)


@pytest.fixture(scope="module")
def endless(micro):
    """A model with random weights, which writes until it is stopped."""
    with RecordingLyrics(*micro) as assistant:
        yield assistant


def test_a_whole_answer_is_that_of_the_object(client, assistant):
    expected = assistant.ask(SCENE_PICTURE, WHERE)
    completion = client.chat.completions.create(model=NAME, messages=about(WHERE, data_url()))
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == "stop"
    assert completion.usage.prompt_tokens == expected.prompt_tokens
    assert completion.usage.completion_tokens == expected.completion_tokens
    assert completion.usage.total_tokens == expected.prompt_tokens + expected.completion_tokens
    extension = completion.model_extra["lyrics"]
    assert extension["boxes"] == expected.to_dict()["boxes"]
    assert extension["boxes"][0]["label"] == "red star"
    assert extension["image_size"] == list(Image.open(SCENE_PICTURE).size)


def test_a_stream_joins_to_the_same_answer(client, server, assistant):
    expected = assistant.ask(SCENE_PICTURE, WHERE)
    messages = about(WHERE, data_url())
    chunks = list(client.chat.completions.create(model=NAME, messages=messages, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    reply = server.post(CHAT, chat(WHERE, stream=True, stream_options={"include_usage": True}))
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    *events, end, usage = reply.events
    assert all(event["usage"] is None for event in (*events, end))
    assert end["lyrics"]["boxes"] == expected.to_dict()["boxes"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == expected.completion_tokens


def test_options_are_those_of_the_object(client, assistant):
    messages = about(WHERE, data_url())

    def ask(**options):
        return client.chat.completions.create(model=NAME, messages=messages, **options)

    stopped = ask(stop=["[", "never"])
    assert stopped.choices[0].message.content == assistant.ask(SCENE_PICTURE, WHERE, stop=["["]).text
    assert "[" not in stopped.choices[0].message.content
    short = ask(max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert ask(max_tokens=3).choices == short.choices
    drawn = assistant.ask(SCENE_PICTURE, WHERE, temperature=2, top_p=0.9, seed=7, max_new_tokens=30)
    again = ask(temperature=2, top_p=0.9, seed=7, max_tokens=30)
    assert again.choices[0].message.content == drawn.text
    assert again.model_extra["lyrics"]["seed"] == 7


def test_turns_and_roles(server, assistant):
    turns = [
        {"role": "developer", "content": "Answer."},
        *about(COLOR, data_url()),
        {"role": "assistant", "content": "purple"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is here?"}, {"type": "box", "box": [0, 0, 0.5, 1]}],
        },
    ]
    reply = server.post(CHAT, {"messages": turns})
    blocks = [{"type": "image", "image": Image.open(SCENE_PICTURE)}, {"type": "text", "text": COLOR}]
    same = [{**turns[0], "role": "system"}, {"role": "user", "content": blocks}, *turns[2:]]
    expected = assistant.ask_messages(same)
    assert reply.json["choices"][0]["message"]["content"] == expected.text
    assert reply.json["usage"]["prompt_tokens"] == expected.prompt_tokens


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server, assistant, tmp_path):
    """Also with a body over the limit, before which curl waits for a sign of the server."""
    command = ["curl", "--silent", "--noproxy", "*", "--data-binary", f"@{tmp_path / 'body'}"]
    command += ["--header", "Content-Type: application/json", f"{server.url}/chat/completions"]
    (tmp_path / "body").write_text(json.dumps(chat(COLOR)))
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["choices"][0]["message"]["content"] == assistant.ask(SCENE_PICTURE, COLOR).text
    (tmp_path / "body").write_bytes(b" " * (ServerLimits().max_body_bytes + 1))
    refused = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert refused["error"]["code"] == "request_too_large"


def test_many_clients_get_their_own_answers(server, assistant):
    """Three images and three questions, asked at once, whole and streamed."""
    scene = Image.open(SCENE_PICTURE).convert("RGB")
    pictures = [scene, ImageOps.mirror(scene), scene.crop((0, 0, scene.width // 2, scene.height))]
    asked = [(picture, question) for picture in pictures for question in (COLOR, WHERE, MANY)]
    expected = [assistant.ask(picture, question).text for picture, question in asked]
    assert len(set(expected)) > 4

    def ask(number):
        picture, question = asked[number % len(asked)]
        is_stream = number % 2 == 0
        reply = server.post(CHAT, chat(question, data_url(picture), stream=is_stream))
        if not is_stream:
            return reply.json["choices"][0]["message"]["content"]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in reply.events)

    answers = run_at_once(ask, 27)
    assert answers == [expected[number % len(asked)] for number in range(27)]


def read_first_piece(server, **fields):
    """A connection that has got a piece of a long answer."""
    connection = server.connect()
    body = json.dumps(chat("What?", stream=True, **fields)).encode()
    connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    while '"content":"' not in (line := response.readline().decode()) or '"content":""' in line:
        assert line
    return connection, response


def test_a_client_that_leaves_stops_its_answer(endless):
    with running(endless) as server:
        connection, response = read_first_piece(server, max_tokens=200)
        response.close()
        connection.close()
        stopped = endless.streams[-1].result(timeout=60)
        assert stopped.finish_reason == "cancelled"
        assert stopped.completion_tokens < 200


def test_a_client_that_leaves_before_its_whole_answer_stops_it(endless):
    with running(endless) as server:
        connection, response = read_first_piece(server, max_tokens=200)  # the other waits behind it
        count, waiting = len(endless.streams), server.connect()
        body = json.dumps(chat("What else?", max_tokens=200)).encode()
        waiting.request("POST", CHAT, body, {"Content-Type": "application/json"})
        while len(endless.streams) == count:
            response.readline()
        waiting.close()
        for _ in endless.streams[-2]:  # leaving the loop stops it
            break
        response.close()
        connection.close()
        with pytest.raises(Exception, match="stopped before it began"):
            endless.streams[-1].result(timeout=60)


def test_a_server_that_ends_finishes_its_answers(endless):
    with running(endless) as server:
        connection, response = read_first_piece(server, max_tokens=100)
        server.server.should_exit = True
        rest = response.read().decode()
        connection.close()
    assert rest.endswith("data: [DONE]\n\n")
    assert endless.streams[-1].result().completion_tokens == 100


def test_work_is_done_outside_of_the_event_loop(endless):
    with running(endless) as server:
        assert server.post(CHAT, chat("What?", max_tokens=1)).status == 200
        assert server.post(OBJECTS, {"image": data_url()}).status == 200
    assert endless.threads
    assert "server" not in endless.threads


def test_an_image_that_comes_again_is_not_decoded_again(endless):
    picture = data_url(Image.effect_noise((60, 40), 90).convert("RGB"))
    with running(endless) as server:
        endless.pictures.clear()
        for _ in range(2):
            assert server.post(CHAT, chat("What?", picture, max_tokens=1)).status == 200
        assert server.post(OBJECTS, {"image": picture}).status == 200
    assert {type(one) for one in endless.pictures} == {OpenedPicture}
    assert ["picture" in vars(opened) for opened in endless.pictures] == [True, False, False]


def test_an_answer_that_takes_too_long(endless):
    with running(endless, ServerLimits(timeout=0.001)) as server:
        reply = server.post(CHAT, chat("What?", max_tokens=200))
        assert reply.status == 503
        assert reply.error["code"] == "timeout"
        assert reply.headers["Retry-After"] == "1"
