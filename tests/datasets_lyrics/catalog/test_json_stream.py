"""Streaming of JSON: the values of the standard library, whatever the size of the window."""

import json
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.datasets_lyrics.catalog.json_stream import (
    JSONStream,
    JSONStreamError,
    stream_elements,
    stream_lines,
    stream_members,
)

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(st.lists(values, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_those_of_the_standard_library(elements, chunk, indent, ascii_only):
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
    stream = JSONStream(StringIO(text), "file", chunk)
    assert list(stream.elements()) == elements
    stream.finish()


def test_lists_and_members_are_found_by_key(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"info": {"a": [1]}, "images": [1, {"b": 2}], "note": "x", "z": {"k": 1}}', encoding="utf-8")
    assert list(stream_elements(path, "images", chunk=3)) == [1, {"b": 2}]
    assert [key for key, _ in stream_members(path)] == ["info", "images", "note", "z"]
    assert list(stream_members(path, "z", chunk=1)) == [("k", 1)]
    with pytest.raises(JSONStreamError, match="has no list 'annotations'"):
        list(stream_elements(path, "annotations"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a list was expected, and the file is empty"),
        ("{}", "a list was expected"),
        ("[1, 2", "expected , or ], and the file ends there: download it again"),
        ("[1 2]", "expected , or ]"),
        ("[1, ]", "Expecting value"),
        ('["cut', "Unterminated string"),
        ("[1] 2", "something follows the end"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "7" * 5000 + "]", "Exceeds the limit"),
        ("[tru, 1" + " " * 100 + "]", "at character 1"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(JSONStreamError, match=r"a\.json") as error:
        list(stream_elements(path))
    assert message in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(JSONStreamError, match="not UTF-8"):
        list(stream_elements(path))


def test_a_bad_line_is_an_error_in_its_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{cut\n2\n')
    (first, one), (second, error), (third, two) = stream_lines(path)
    assert (first, one, second, third, two) == (1, {"a": 1}, 3, 4, 2)
    assert isinstance(error, JSONStreamError)
