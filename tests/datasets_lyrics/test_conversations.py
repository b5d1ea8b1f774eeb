"""Rows in TRL's forms and LLaVA's: all become the same conversation, or say what is wrong."""

import pytest
from transformers.utils import logging

from lyrics.datasets_lyrics.conversations import outline, read_conversation

from ..sft_parts import say

BOX = [0.1, 0.2, 0.3, 0.4]
ASKED, ANSWERED = say("user", None, "Where is the cup?"), say("assistant", "At ", BOX, ".")
LLAVA = [{"from": "human", "value": "<image>\nWhere is the cup?"}, {"from": "gpt", "value": "At <box>."}]
MARKED = [{"role": "user", "content": "Where is the cup?"}, {"role": "assistant", "content": "At <box>."}]

FORMS = {
    "messages": {"messages": [ASKED, ANSWERED], "images": ["a.png"]},
    "image in its block": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, *ASKED["content"][1:]]},
            ANSWERED,
        ]
    },
    "one image": {"messages": [ASKED, ANSWERED], "image": "a.png"},
    "as Arrow fills it": {
        "messages": [
            {
                "role": message["role"],
                "content": [{"type": None, "text": None, "box": None} | block for block in message["content"]],
            }
            for message in (ASKED, ANSWERED)
        ],
        "images": ["a.png"],
        "prompt": None,
    },
    "no place": {"messages": [say("user", "Where is the cup?"), ANSWERED], "images": ["a.png"]},
    "marks": {"messages": MARKED, "images": ["a.png"], "boxes": [BOX]},
    "conversations": {"conversations": LLAVA, "image": "a.png", "boxes": [BOX]},
    "boxes as mappings": {"conversations": LLAVA, "image": "a.png", "boxes": [{"box": BOX}]},
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one(form):
    conversation = read_conversation(FORMS[form])
    assert conversation.messages == [ASKED, ANSWERED]
    assert conversation.pictures == ["a.png"]
    assert conversation.learned_from == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_outline_needs_no_picture(form):
    row = FORMS[form]
    texts, pictures, boxes = outline(row)
    assert ("".join(texts), pictures, boxes) == ("Where is the cup?At .", 1, 1)


@pytest.mark.parametrize("as_text", [True, False])
def test_of_a_prompt_and_a_completion_the_completion_is_learned(as_text):
    earlier = [say("user", "One?"), say("assistant", "Two."), say("user", "Three?")]
    row = {"prompt": "Three?" if as_text else earlier, "completion": "Four."}
    if not as_text:
        row["completion"] = [say("assistant", "Four.")]
    conversation = read_conversation(row)
    assert conversation.messages[conversation.learned_from :] == [say("assistant", "Four.")]
    assert len(conversation.messages) == (2 if as_text else 4)


def test_text_that_looks_like_a_place_stays_text():
    """In TRL's form a place is a block, unless the row says what goes there."""
    messages = [say("user", "<image> <box>"), {"role": "assistant", "content": "<image>"}]
    conversation = read_conversation({"messages": messages})
    assert conversation.messages[0]["content"] == [{"type": "text", "text": "<image> <box>"}]
    assert conversation.messages[1]["content"] == [{"type": "text", "text": "<image>"}]
    assert conversation.pictures == []


def test_an_empty_column_does_not_hide_the_other():
    """Arrow fills the columns that other rows of a file have with `None`."""
    row = {"image": "a.png", "images": None, "messages": [say("user", "What?"), say("assistant", "A cup.")]}
    assert read_conversation(row).pictures == ["a.png"]


def test_pictures_keep_their_places():
    row = {
        "conversations": [
            {"from": "human", "value": "<image>\n<image>\nFirst, then <image> here"},
            {"from": "gpt", "value": "Yes."},
            {"from": "human", "value": "And <image>?"},
            {"from": "gpt", "value": "No."},
        ],
        "images": list("abcd"),
    }
    conversation = read_conversation(row)
    first, third = conversation.messages[0], conversation.messages[2]
    assert first == say("user", None, None, "First, then ", None, " here")
    assert third == say("user", "And ", None, "?")
    assert conversation.pictures == list("abcd")


ANSWER = {"role": "assistant", "content": "<image>? Yes."}


@pytest.mark.parametrize("kind", ["text", "block"])
@pytest.mark.parametrize("form", ["messages", "prompt and completion"])
def test_marks_are_places_in_rows_of_other_trainers(kind, form):
    """LLaVA, ms-swift and LLaMA-Factory write `<image>` in the text, once for each of `images`. Answers stay text."""
    texts = ["<image>\n<image>\nWhich is red?", "And <image>?"]
    asked = [
        {"role": "user", "content": text if kind == "text" else [{"type": "text", "text": text}]} for text in texts
    ]
    messages = [asked[0], ANSWER, asked[1], ANSWER]
    row = {"messages": messages} if form == "messages" else {"prompt": messages[:3], "completion": messages[3:]}
    conversation = read_conversation(row | {"images": list("abc")})
    assert conversation.messages[0] == say("user", None, None, "Which is red?")
    assert conversation.messages[2] == say("user", "And ", None, "?")
    assert conversation.messages[1] == say("assistant", "<image>? Yes.")
    assert conversation.pictures == list("abc")
    assert outline(row | {"images": list("abc")})[1] == 3


@pytest.mark.parametrize(
    ("content", "images"),
    [
        ("What does the tag <image> mean?", []),
        ([{"type": "image"}, {"type": "text", "text": "What does the tag <image> mean?"}], ["a"]),
        ("<image> and <image>", ["a"]),
    ],
    ids=["no images", "images have blocks", "other numbers"],
)
def test_other_marks_stay_text(content, images, caplog):
    """Where the numbers differ, a warning says so once."""
    logging.enable_propagation()
    row = {"messages": [{"role": "user", "content": content}, ANSWER], "images": images}
    for _ in range(2):
        conversation = read_conversation(row)
    texts = [block["text"] for block in conversation.messages[0]["content"] if block["type"] == "text"]
    assert "".join(texts) == (content if isinstance(content, str) else content[1]["text"])
    assert [block["type"] for block in conversation.messages[0]["content"]].count("image") == len(images)
    assert caplog.text.count("1 images and 2 <image> in the text") == (content == "<image> and <image>")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "no conversation: it needs .* and has 'text'"),
        ({"messages": [ASKED, ANSWERED]}, "1 places for images, but 0 images"),
        ({"messages": [ASKED, ANSWERED], "images": ["a", "b"]}, "1 places for images, but 2 images"),
        ({"messages": [ASKED], "images": ["a"]}, "no answer to be learned"),
        ({"messages": [ANSWERED], "images": ["a"]}, "1 images and no message of a user"),
        ({"messages": [say("tool", "x"), ANSWERED]}, "role 'tool'"),
        ({"messages": [say("user", "x"), say("assistant", None)], "images": ["a"]}, "only those of the user"),
        ({"messages": [say("user", "x"), say("system", "x"), ANSWERED]}, "must be the first"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}, ANSWERED]}, "no text, image or box"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}, ANSWERED]}, "no text, image or"),
        ({"messages": MARKED, "boxes": [BOX, BOX]}, "1 boxes more than <box>"),
        ({"conversations": LLAVA, "image": "a"}, "more <box> than boxes"),
        ({"messages": MARKED, "boxes": BOX}, r"A box must be \[x1, y1, x2, y2\], .* got 0\.1"),
        ({"messages": MARKED, "boxes": [{"x": 1}]}, r"A box must be \[x1, y1, x2, y2\], .* got None"),
        ({"messages": MARKED, "boxes": [{"box": {"x": 1}}]}, r"A box must be .* got \{'x': 1\}"),
        ({"conversations": []}, "no conversation: 'conversations' is empty"),
        ({"messages": []}, "no conversation: 'messages' is empty"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "from 'bing'; known are human, gpt"),
    ],
)
def test_what_is_wrong_is_said(row, message):
    with pytest.raises(ValueError, match=message):
        read_conversation(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a text", "A row must be a mapping"),
        ({"messages": 3}, "'messages' must be a list of messages with role and content, got 3"),
        ({"messages": ["Where?", "There."]}, "'messages' must be a list of messages"),
        ({"conversations": [None]}, "'conversations' must be a list of messages"),
        ({"conversations": [{"from": ["human"], "value": "Where?"}]}, r"A message is from \['human'\]"),
        ({"prompt": True, "completion": "There."}, "'prompt' must be a list of messages"),
        ({"prompt": "Where?", "completion": 2.5}, "'completion' must be a list of messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "must hold text or a list of blocks, got 3"),
        ({"messages": [{"role": "user", "content": ["Where?"]}]}, "must hold text or a list of blocks"),
    ],
)
def test_values_of_other_types_are_named(row, message):
    for read in (read_conversation, outline):
        with pytest.raises(ValueError, match=message):
            read(row)
