"""Conversations that are too long lose text, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.processing_lyrics import format_object, parse_spatial_text
from lyrics.trainers.data.conversation_truncation import TooLongError, truncate_conversation

from ...sft_parts import say

PICTURE = 10  # tokens
BOX = format_object("cup", [0.1, 0.2, 0.3, 0.4])

TEXTS = st.lists(st.sampled_from(["word", "another", BOX]), min_size=1, max_size=12).map(" ".join)


@st.composite
def conversations(draw):
    messages = [say("system", "Be kind.")] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        places = [None] * draw(st.integers(0, 1))
        messages += [say("user", *places, draw(TEXTS)), say("assistant", draw(TEXTS))]
    return messages


def blocks(messages, kind):
    return [block for message in messages for block in message["content"] if block["type"] == kind]


def measure(messages):
    """Words; a box is cut into several, as a tokenizer does it."""
    words = sum(len(re.findall(r"\w+|[^\w\s]", block["text"])) for block in blocks(messages, "text"))
    return words + PICTURE * len(blocks(messages, "image"))


def boxes_of(messages):
    return [found.boxes for block in blocks(messages, "text") for found in parse_spatial_text(block["text"]).objects]


@given(messages=conversations(), max_length=st.integers(5, 150))
def test_it_fits_and_keeps_what_matters(messages, max_length):
    before = [dict(message) for message in messages]
    least = PICTURE * len(blocks(messages[:-2], "image")) + measure(messages[-2:-1])
    if least > max_length:
        with pytest.raises(TooLongError, match=f"max_length is {max_length}"):
            truncate_conversation(messages, measure, max_length)
        return
    try:
        fitted, learned_from, shortened = truncate_conversation(messages, measure, max_length)
    except TooLongError:  # a word or a box of each text is left
        assert max_length < least + len(messages) * measure([say("user", BOX)])
        return
    assert messages == before, "what was given is left alone"
    assert measure(fitted) <= max_length
    assert len(blocks(fitted, "image")) == len(blocks(messages, "image"))
    assert fitted[-2] == messages[-2], "the last question is whole"
    assert fitted[-1]["role"] == "assistant"
    assert blocks(fitted[-1:], "text")[0]["text"]
    for block in blocks(fitted, "text"):  # no half box
        left = re.sub(r"\s", "", block["text"])
        for found in parse_spatial_text(block["text"]).objects:
            left = left.replace(re.sub(r"\s", "", block["text"][slice(*found.span)]), "")
        assert "[" not in left
    assert learned_from == 0
    assert all(fitted[number]["role"] == "assistant" for number in shortened)
    if measure(messages) <= max_length:
        assert (fitted, shortened) == (messages, set())


def test_the_oldest_exchange_without_a_picture_goes_first():
    messages = [
        say("user", None, "one"), say("assistant", "two"),
        say("user", "three"), say("assistant", "four"),
        say("user", "five"), say("assistant", "six"),
        say("user", "seven"), say("assistant", "eight"),
    ]  # fmt: skip
    fitted, learned_from, shortened = truncate_conversation(messages, measure, measure(messages) - 1, learned_from=7)
    assert fitted == messages[:2] + messages[4:]
    assert (learned_from, shortened) == (5, set())


def test_the_longest_text_is_cut_between_words():
    messages = [say("user", "a question"), say("assistant", f"one two {BOX} three four five")]
    fitted, _, shortened = truncate_conversation(messages, measure, measure(messages) - 2)
    assert fitted[1] == say("assistant", f"one two {BOX} three")
    assert shortened == {1}


def test_what_cannot_fit_is_an_error_with_both_lengths():
    messages = [say("user", None, None, "a question"), say("assistant", "yes")]
    with pytest.raises(TooLongError, match=r"takes 23 tokens at the least, .* max_length is 20"):
        truncate_conversation(messages, measure, 20)
