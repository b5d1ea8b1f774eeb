"""Chats: turns on kept images and keys, boxes in questions, and conversations that `lyrics sft` reads."""

import json

import numpy as np
import pytest
from PIL import Image

from lyrics import SCENE_PICTURE
from lyrics.assets import EXAMPLE_PICTURE
from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.processing_lyrics import parse_spatial_text
from lyrics.trainers.data.conversation_rows import ConversationReader

QUESTIONS = ["What color is the ring?", "Where is the red star?", "And the ring?", "How many objects are there?"]


def test_turns_are_those_of_the_whole_conversation(assistant, forgetful):
    """With and without caches."""
    kept, fresh = assistant.chat(SCENE_PICTURE), forgetful.chat(SCENE_PICTURE)
    for question in QUESTIONS:
        assert kept.ask(question).text == fresh.ask(question).text
    assert [message["role"] for message in kept.messages] == ["user", "assistant"] * len(QUESTIONS)
    assert kept.messages == fresh.messages


def test_a_turn_reads_only_what_is_new(assistant, parts):
    """The images are not encoded again, and the language model does not read the earlier turns."""
    chat = assistant.chat(Image.open(SCENE_PICTURE).resize((333, 333)))
    first = chat.ask(QUESTIONS[0])
    lengths, encoded = [], []
    hooks = [
        parts[0].model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
        ),
        parts[0].model.vision_model.register_forward_pre_hook(lambda module, args: encoded.append(1)),
    ]
    try:
        second = chat.ask(QUESTIONS[1])
    finally:
        for hook in hooks:
            hook.remove()
    assert not encoded
    assert lengths[0] < second.prompt_tokens - first.prompt_tokens + 2
    assert set(lengths[1:]) == {1}


def test_a_second_picture_and_a_box(assistant):
    chat = assistant.chat(SCENE_PICTURE, max_new_tokens=12)
    chat.ask(QUESTIONS[0])
    chat.add_image(EXAMPLE_PICTURE)
    answer = chat.ask("What is this?", boxes=[[48, 32, 240, 160]])
    assert answer.picture.size == (480, 320)
    assert len(answer.pictures) == 2
    question = chat.messages[-2]["content"]
    assert [block["type"] for block in question] == ["image", "text", "box"]
    assert question[-1]["box"] == pytest.approx([0.1, 0.1, 0.5, 0.5])
    written = answer.question.messages[-1]["content"]
    assert "".join(block.get("text", "") for block in written) == "What is this? [0.100, 0.100, 0.500, 0.500]"


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.json"])
def test_a_saved_chat_is_a_row_for_training(assistant, tmp_path, name):
    chat = assistant.chat(SCENE_PICTURE)
    chat.ask(QUESTIONS[1])
    chat.ask("What is this?", boxes=[[100, 100, 300, 300]])
    chat.save(tmp_path / name)
    rows = open_rows(tmp_path / name)
    assert len(rows) == 1
    read = read_conversation(rows[0])
    assert [message["role"] for message in read.messages] == ["user", "assistant"] * 2
    picture = assistant.processor.load_pictures(read.pictures)[0]
    assert np.array_equal(picture, np.asarray(Image.open(SCENE_PICTURE).convert("RGB")))
    assert parse_spatial_text(read.messages[1]["content"][0]["text"]).objects
    assert read.messages[2]["content"][1]["box"] == pytest.approx([value / 512 for value in (100, 100, 300, 300)])
    assert len((tmp_path / name).read_text().splitlines()) == 1
    assert json.loads((tmp_path / name).read_text()) == chat.to_row()


def test_boxes_of_two_pictures_are_read_for_training(assistant, tmp_path):
    """Each box names its image, also the one that was asked about before there was a second image."""
    chat = assistant.chat(SCENE_PICTURE, max_new_tokens=12)
    chat.ask("What is this?", boxes=[[0, 0, 256, 128]])
    chat.add_image(EXAMPLE_PICTURE)
    chat.ask("And this?", boxes=[[48, 32, 240, 160]])
    chat.save(tmp_path / "chat.jsonl")
    row = open_rows(tmp_path / "chat.jsonl")[0]
    conversation = read_conversation(row)
    boxes = [block for message in conversation.messages for block in message["content"] if block["type"] == "box"]
    assert [block["image"] for block in boxes] == [0, 1]
    read = ConversationReader(assistant.processor).prepare(conversation, row, "0")
    assert [image.size for image in read.images] == [(512, 512), (480, 320)]
    texts = ["".join(block.get("text", "") for block in message["content"]) for message in read.messages]
    assert texts[0::2] == ["What is this? [0.000, 0.000, 0.500, 0.250]", "And this? [0.100, 0.100, 0.500, 0.500]"]
    assert texts[1::2] == [message["content"][0]["text"] for message in chat.messages[1::2]]


def test_what_goes_wrong_leaves_the_chat_as_it_was(assistant):
    chat = assistant.chat()
    with pytest.raises(ValueError, match="A box needs an image"):
        chat.ask("What is this?", boxes=[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"'none\.png' does not exist"):
        chat.add_image("none.png")
    chat.add_image(SCENE_PICTURE)
    for box in ([1, 2, 3], [5, 5, 5, 9], [0, 0, 600, 20], [-1, 0, 2, 2]):
        with pytest.raises(ValueError, match=r"x1 < x2 <= 512 and y1 < y2 <= 512, got \["):
            chat.ask("What is this?", boxes=[box])
    with pytest.raises(ValueError, match="The question is empty"):
        chat.ask("  ")
    with pytest.raises(ValueError, match="reads 1024"):
        chat.ask("star " * 1100)
    with pytest.raises(ValueError, match="no answer yet"):
        chat.to_row()
    assert chat.messages == []
    assert chat.last is None
    assert chat.ask(QUESTIONS[0]).text == assistant.ask(SCENE_PICTURE, QUESTIONS[0]).text  # the image is still new


def test_a_stopped_answer_is_remembered_as_far_as_it_was_written(assistant):
    chat = assistant.chat(SCENE_PICTURE)
    stream = chat.stream("Describe the picture.")
    for _ in stream:
        break
    assert chat.messages[-1]["content"][0]["text"] == stream.result().text
    assert chat.last.finish_reason == "cancelled"
    chat.reset()
    assert chat.messages == []
    assert chat.ask(QUESTIONS[0]).pictures
    chat.reset(keep_pictures=False)
    assert chat.ask(QUESTIONS[0], max_new_tokens=3).pictures == []
