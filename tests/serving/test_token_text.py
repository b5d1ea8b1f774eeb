"""Text of tokens as they arrive: pieces join to the whole, without spaces around it and without stop strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.serving.token_text import TokenText


def decode(token_ids):
    """Tokens are bytes."""
    return bytes(token_ids).decode("utf-8", "replace")


def pieces_of(text, stop=()):
    """The pieces of a text, fed byte by byte, and the object."""
    found = TokenText(decode, stop)
    pieces = [found.add(token_id) for token_id in text.encode()]
    return [*pieces, found.finish()], found


def cut(text, stop):
    """A text up to the stop string that is complete first, without spaces around."""
    text = text.lstrip()
    for end in range(len(text) + 1):
        if found := [one for one in stop if text[:end].endswith(one)]:
            return text[: end - max(map(len, found))].rstrip()
    return text.rstrip()


@given(st.text("ab c\n<é🙂"), st.lists(st.text("ab c<é", min_size=1, max_size=3), max_size=2))
def test_pieces_join_to_the_text_before_a_stop_string(text, stop):
    pieces, found = pieces_of(text, stop)
    assert "".join(pieces) == found.text == cut(text, stop)
    assert found.stopped == any(one in text.lstrip() for one in stop)


@pytest.mark.parametrize(
    ("text", "stop", "pieces"),
    [
        (" red  star ", (), ["r", "e", "d", "  s", "t", "a", "r"]),
        ("é🙂!", (), ["é", "🙂", "!"]),
        ("a</s>b", ("</s>",), ["a"]),
        ("a</sb", ("</s>",), ["a", "</sb"]),
        ("a\nb", ("\n",), ["a"]),
    ],
)
def test_what_is_shown_when(text, stop, pieces):
    assert [piece for piece in pieces_of(text, stop)[0] if piece] == pieces


def test_bytes_that_are_no_character_are_shown_at_last():
    found = TokenText(decode)
    shown = [found.add(token_id) for token_id in b"ab\xff"] + [found.finish()]
    assert "".join(shown) == "ab\ufffd"
