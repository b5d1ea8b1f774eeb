"""Boxes of data sets: conversions and their inverses, clamping, and what is no box."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lyrics.datasets_lyrics.catalog.boxes import from_center, from_padded_square, from_xywh, from_xyxy
from lyrics.datasets_lyrics.catalog.omissions import OmittedError

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
fractions = st.tuples(*[st.floats(0, 1)] * 4)


def pixels(box, size):
    return [value * size[place % 2] for place, value in enumerate(box)]


@given(sizes, fractions)
def test_every_form_gives_the_same_box(size, corners):
    x1, x2 = sorted((corners[0], corners[2]))
    y1, y2 = sorted((corners[1], corners[3]))
    assume(x2 - x1 > 1e-3 and y2 - y1 > 1e-3)
    box = pytest.approx([x1, y1, x2, y2], abs=2e-6)
    left, top, right, bottom = pixels((x1, y1, x2, y2), size)
    assert from_xyxy([left, top, right, bottom], size) == box
    assert from_xyxy([right, bottom, left, top], size) == box
    assert from_xyxy([left + 1, top + 1, right, bottom], size, start=1) == box
    assert from_xywh([left, top, right - left, bottom - top], size) == box
    assert from_center([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) == box
    side = max(size)
    shift = ((side - size[0]) // 2, (side - size[1]) // 2)
    padded = [(value + shift[place % 2]) / side for place, value in enumerate((left, top, right, bottom))]
    assert from_padded_square(padded, size) == box


@given(sizes, st.tuples(*[st.floats(-1e4, 1e4)] * 4))
def test_any_numbers_give_a_box_within_the_picture_or_an_omission(size, values):
    try:
        x1, y1, x2, y2 = from_xyxy(values, size)
    except OmittedError:
        return
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1


@pytest.mark.parametrize(
    "values", [None, "1234", [1, 2, 3], [1, 2, 3, "x"], [1, 2, float("nan"), 4], [1, 2, 3, float("inf")], {}, [1] * 4]
)
def test_what_is_no_box_is_told(values):
    with pytest.raises(OmittedError, match="bad box"):
        from_xyxy(values, (10, 10))
