"""Flips and crops: whatever knows a place in the image goes with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lyrics.processing_lyrics import VisualObjects
from lyrics.trainers import Augmentation

SIZE = (60, 40)
ALWAYS = Augmentation(flip=0.5, crop=1.0, least_area=0.3)


@st.composite
def pixel_boxes(draw):
    """A box of whole pixels in `SIZE`."""
    x1, y1 = draw(st.integers(0, SIZE[0] - 2)), draw(st.integers(0, SIZE[1] - 2))
    return x1, y1, draw(st.integers(x1 + 1, SIZE[0])), draw(st.integers(y1 + 1, SIZE[1]))


def to_relative(box):
    return [value / side for value, side in zip(box, SIZE * 2, strict=True)]


@given(box=pixel_boxes(), seed=st.integers(0, 2**20))
def test_a_box_stays_on_its_object(box, seed):
    """A white rectangle is where its box says, afterwards as well, and whole when it is spoken of."""
    picture = Image.new("L", SIZE)
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    move = ALWAYS.draw([to_relative(box)], np.random.default_rng(seed))
    moved_picture = move.picture(picture)
    moved = move.boxes(np.array([to_relative(box)]), SIZE)[0] * np.array(moved_picture.size * 2)
    found = moved_picture.getbbox()
    assert np.allclose(moved, found, atol=1e-6)
    assert (found[2] - found[0], found[3] - found[1]) == (box[2] - box[0], box[3] - box[1])


@given(boxes=st.lists(pixel_boxes(), max_size=5), seed=st.integers(0, 2**20))
def test_objects_move_and_those_cut_off_are_gone(boxes, seed):
    relative = np.array([to_relative(box) for box in boxes], np.float32).reshape(-1, 4)
    features = np.concatenate([np.arange(len(boxes) * 3).reshape(-1, 3), relative], axis=1).astype(np.float32)
    objects = VisualObjects(list("abcde")[: len(boxes)], relative, np.linspace(1, 0.5, len(boxes)), features)
    move = ALWAYS.draw([], np.random.default_rng(seed))
    moved = move.objects(objects, SIZE)
    assert np.allclose(moved.region_features[:, -4:], moved.boxes)
    expected = move.boxes(relative, SIZE)
    places = [objects.labels.index(label) for label in moved.labels]
    assert places == sorted(places)
    assert np.allclose(moved.boxes, expected[places].reshape(-1, 4))
    assert np.array_equal(moved.region_features[:, :3], features[places, :3].reshape(-1, 3))
    for gone in set(range(len(boxes))) - set(places):
        x1, y1, x2, y2 = expected[gone] * np.array(move.picture(Image.new("L", SIZE)).size * 2)
        whole = (boxes[gone][2] - boxes[gone][0]) * (boxes[gone][3] - boxes[gone][1])
        assert (x2 - x1) * (y2 - y1) <= 0.35 * whole + 2, "an object is given up for little"


def test_features_that_are_not_one_for_each_box_cannot_move():
    objects = VisualObjects(["a"], np.array([[0.1, 0.1, 0.5, 0.5]]), np.ones(1), np.zeros((3, 8), np.float32))
    move = Augmentation(flip=1.0).draw([], np.random.default_rng(0))
    with pytest.raises(ValueError, match="cannot be moved with their image"):
        move.objects(objects, SIZE)


def test_nothing_happens_by_default():
    move = Augmentation().draw([[0.0, 0.0, 1.0, 1.0]], np.random.default_rng(0))
    assert not move.changes


@pytest.mark.parametrize("name", ["flip", "crop", "least_area"])
def test_impossible_probabilities(name):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got 1.5"):
        Augmentation(**{name: 1.5})
