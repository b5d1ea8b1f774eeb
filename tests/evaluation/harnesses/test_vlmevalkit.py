"""The adapter for VLMEvalKit, against a stub of its interface: a base class, and a dictionary of models."""

import importlib
import sys
from types import ModuleType

import pytest

from lyrics.assets import SCENE_PICTURE


class BaseModel:
    """What `vlmeval.vlm.base.BaseModel` does with a message, in short."""

    allowed_types = ("text", "image")

    def generate(self, message, dataset=None):
        message = [{"type": "text", "value": message}] if isinstance(message, str) else message
        assert all(entry["type"] in self.allowed_types for entry in message)
        return self.generate_inner(message, dataset)

    def chat(self, messages, dataset=None):
        return self.chat_inner(messages, dataset)


@pytest.fixture
def adapter(monkeypatch):
    names = ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base", "vlmeval.config")
    stubs = {name: ModuleType(name) for name in names}
    stubs["vlmeval.vlm.base"].BaseModel = BaseModel
    stubs["vlmeval.config"].supported_VLM = {}
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    module = importlib.import_module("lyrics.evaluation.harnesses.vlmevalkit")
    yield module
    del sys.modules[module.__name__]


def test_registered_model_answers(adapter, loads_assistant, assistant):
    adapter.register("mine", model_path="somewhere", max_new_tokens=3, temperature=0, store="objects")
    model = sys.modules["vlmeval.config"].supported_VLM["mine"]()
    assert loads_assistant == [(("somewhere",), {"device": None, "dtype": None, "store": "objects", "refiner": True})]
    image = {"type": "image", "value": str(SCENE_PICTURE)}
    message = [image, {"type": "text", "value": "What is it?"}]
    expected = assistant.ask(SCENE_PICTURE, "What is it?", max_new_tokens=3).text
    assert model.generate(message, dataset="MMBench") == expected
    assert model.generate("How are you?") == assistant.ask(None, "How are you?", max_new_tokens=3).text
    assert not model.use_custom_prompt("MMBench")


def test_conversation_goes_on(adapter, loads_assistant, assistant):
    model = adapter.LyricsVLM(max_new_tokens=3)
    picture = str(SCENE_PICTURE)
    turns = [
        ("user", [{"type": "image", "value": picture}, {"type": "text", "value": "What is it?"}]),
        ("assistant", [{"type": "text", "value": "a star"}]),
        ("user", [{"type": "text", "value": "And its color?"}]),
    ]
    answer = model.chat([{"role": role, "content": content} for role, content in turns])
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "a star"},
        {"role": "user", "content": "And its color?"},
    ]
    assert answer == assistant.ask_messages(messages, max_new_tokens=3).text


def test_videos_are_refused(adapter, loads_assistant):
    with pytest.raises(ValueError, match="an entry of type 'video'"):
        adapter.LyricsVLM().generate_inner([{"type": "video", "value": "clip.mp4"}])
