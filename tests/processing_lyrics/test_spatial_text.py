"""Boxes as text: written, tokenized and read back."""

import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.assets.random_model import build_bert_tokenizer
from lyrics.processing_lyrics import format_box, format_object, format_objects, parse_spatial_text
from lyrics.processing_lyrics.spatial_text import (
    clean_label,
    format_short_objects,
    parse_short_objects,
    quantize,
    tokenize_objects,
)

coordinate = st.floats(0, 1) | st.sampled_from([0.0, -0.0, 1.0, 0.0005, 0.9995, 1.0004, 1.5, -3.0])
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda values: (*map(min, values[:2], values[2:]), *map(max, values[:2], values[2:]))
)
label = st.text(max_size=40) | st.text(alphabet=string.punctuation + " \n\tab\ud800", max_size=20)


@given(box)
def test_a_box_reads_back_as_it_was_written(values):
    found = parse_spatial_text(format_box(values)).objects
    assert [one.box for one in found] == [tuple(map(quantize, values))]
    assert found[0].span == (0, len(format_box(values)))


@given(st.lists(st.tuples(label, box), max_size=6))
def test_objects_read_back_as_they_were_written(objects):
    """Whatever a label holds, it reads back as its clean form."""
    labels, boxes = [name for name, _ in objects], [values for _, values in objects]
    found = parse_spatial_text(format_objects(labels, boxes)).objects
    assert [one.label for one in found] == [clean_label(name) for name in labels]
    assert [one.box for one in found] == [tuple(map(quantize, values)) for values in boxes]


@given(st.lists(st.tuples(label, box), max_size=6))
def test_short_objects_read_back_with_the_same_numbers(objects):
    labels, boxes = [name for name, _ in objects], [values for _, values in objects]
    text = format_short_objects(labels, boxes)
    found = parse_short_objects(text)
    assert [(one.label, one.box) for one in found] == [
        (clean_label(name), tuple(map(quantize, values))) for name, values in objects
    ]
    assert all(len(text[slice(*one.span)].split()) == 4 for one in found)


@pytest.mark.parametrize("text", ["", ";", "cat: 1 2 3", "cat: 1 2 3 1001;", "cat 1 2 3 4", "cat: 0.1 0.2 0.3 0.4"])
def test_what_is_no_short_object(text):
    assert parse_short_objects(text) == []


@given(label)
def test_clean_labels_are_stable_and_never_empty(name):
    clean = clean_label(name)
    assert clean
    assert clean_label(clean) == clean
    assert not set(clean) & set("[];\n\r\x00")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000"), (-0.0, "0.000"), (1, "1.000"), (0.12345, "0.123"), (1.0004, "1.000"), (-0.2, "0.000"), (7, "1.000")],
)
def test_three_decimals_within_the_picture(value, text):
    assert format_box([value] * 4) == f"[{text}, {text}, {text}, {text}]"


def test_no_number_is_an_error():
    with pytest.raises(ValueError, match="not a number"):
        format_object("cat", [0.1, math.nan, 0.2, 0.3])


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[0.1,0.2,0.3,0.4]", [(0.1, 0.2, 0.3, 0.4)]),
        ("[ 0.1 ,  0.2,\n0.3, 0.4 ]", [(0.1, 0.2, 0.3, 0.4)]),
        ("[0, 0, 1, 1]", [(0, 0, 1, 1)]),
        ("[0.3, 0.4, 0.1, 0.2]", [(0.1, 0.2, 0.3, 0.4)]),
        ("[-0.0, 0.2, 1.001, 0.4]", [(0, 0.2, 1, 0.4)]),
        ("[0.1, 0.2, 0.3]", []),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", []),
        ("[0.1 0.2 0.3 0.4]", []),
        ("[1e-3, 0.2, 0.3, 0.4]", []),
        ("[12, 15, 300, 400]", []),
        ("[0.1, 0.2, 0.3, 1.5]", []),
        ("[nan, 0.2, 0.3, 0.4]", []),
        ("[\uff10.\uff11, 0.2, 0.3, 0.4]", []),
        ("[[0.1, 0.2, 0.3, 0.4]]", [(0.1, 0.2, 0.3, 0.4)]),
        ("(0.1, 0.2, 0.3, 0.4)", []),
        ("{0} %s [0.1, 0.2, 0.3, 0.4]", [(0.1, 0.2, 0.3, 0.4)]),
        ("[.5, 1., +0.25, 00.75]", [(0.25, 0.75, 0.5, 1.0)]),
        ("[0.1234567890123456, 0, 1, 1]", [(0.1234567890123456, 0, 1, 1)]),
        ("[0.1, 0.2, 0.3, 0.4 0]", []),
        ("[0.1, 0.2, 0.3, 0.4.]", []),
        ("[,,,,,,,]", []),
        ("[0.1, 0.2, " + " " * 200 + "0.3, 0.4]", []),
        ("", []),
    ],
)
def test_what_is_a_box(text, boxes):
    assert [one.box for one in parse_spatial_text(text).objects] == boxes


def test_labels_in_running_text():
    text = "On the table\nthe red ball: [0.1, 0.2, 0.3, 0.4], a cup: [0.5, 0.5, 0.6, 0.6] and [0, 0, 1, 1]."
    found = parse_spatial_text(text)
    assert [one.label for one in found.objects] == ["the red ball", "a cup", ""]
    assert found.plain_text == "On the table\nthe red ball, a cup and ."
    assert all(text[slice(*one.span)].startswith("[") for one in found.objects)


@given(st.text(alphabet="[]0123456789., \n:-+ae\uff11\u200b", max_size=300))
def test_hostile_text_stays_text(text):
    """What is found are boxes in the image, in order, without overlap, and the rest is kept."""
    found = parse_spatial_text(text)
    assert found.text == text
    end = 0
    for one in found.objects:
        assert end <= one.span[0] < one.span[1]
        assert all(0 <= value <= 1 for value in one.box)
        assert one.box[0] <= one.box[2]
        assert one.box[1] <= one.box[3]
        end = one.span[1]


# ---------------------------------------------------------------------------------------------------- items

TOKENIZER = build_bert_tokenizer("[BOS]", "[DEC]", "[MLM]")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(label, box), max_size=5), st.sampled_from(["decimal", "short"]))
def test_items_cover_labels_and_coordinates(objects, style):
    """Each item's tokens are the tokens of its text; what belongs to none is punctuation."""
    labels, boxes = [name for name, _ in objects], [values for _, values in objects]
    tokens = tokenize_objects(labels, boxes, TOKENIZER, style=style)
    write = "{:.3f}".format if style == "decimal" else lambda value: str(round(1000 * value))
    assert tokens.num_objects == len(objects)
    assert len(tokens.input_ids) == len(tokens.item_ids)
    for index, (name, values) in enumerate(objects):
        for item, text in enumerate([clean_label(name), *(write(quantize(value)) for value in values)]):
            own = [
                token
                for token, owner in zip(tokens.input_ids, tokens.item_ids, strict=True)
                if owner == 5 * index + item
            ]
            assert own == TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    between = {token for token, owner in zip(tokens.input_ids, tokens.item_ids, strict=True) if owner == -1}
    assert set(TOKENIZER.convert_ids_to_tokens(sorted(between))) <= set(":[],;")


@given(st.integers(0, 120))
def test_objects_are_left_out_whole(limit):
    labels, boxes = ["cup", "fire truck", "ball"], [[0.1, 0.2, 0.3, 0.4]] * 3
    every = tokenize_objects(labels, boxes, TOKENIZER)
    some = tokenize_objects(labels, boxes, TOKENIZER, max_tokens=limit)
    assert len(some.input_ids) <= limit
    assert some.input_ids == every.input_ids[: len(some.input_ids)]
    assert {item // 5 for item in some.item_ids if item >= 0} == set(range(some.num_objects))
    assert some.num_objects == 3 or len(some.input_ids) + len(every.input_ids) // 3 >= limit - 20


def test_a_label_that_imitates_a_special_token_stays_text():
    tokens = tokenize_objects(["[SEP] [BOS]", "[MASK]"], [[0, 0, 1, 1]] * 2, TOKENIZER)
    assert not set(tokens.input_ids) & set(TOKENIZER.all_special_ids)
