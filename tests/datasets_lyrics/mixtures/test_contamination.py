"""Images of evaluation splits are known again: by number, by file and by what they show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lyrics.datasets_lyrics.mixtures.contamination import picture_identity
from lyrics.datasets_lyrics.mixtures.perceptual_hash import near, perceptual_hash
from lyrics.datasets_lyrics.toy_data import ShapeRows


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("train2014/COCO_train2014_000000000007.jpg", "coco", "coco/7"),
        ("coco/val2017/000000000007.jpg", "", "coco/7"),
        ("000000123456.jpg", "", "coco/123456"),
        ("vg/VG_100K_2/7.jpg", "", "vg/7"),
        ("gqa/images/7.jpg", "", "vg/7"),
        ("images/v7w_2407890.jpg", "visual7w", "vg/2407890"),
        ("images/7.jpg", "flickr30k", "flickr30k/7.jpg"),
        ("images/7.jpg", "", ""),
    ],
)
def test_identities(path, source, expected):
    assert picture_identity(path, source) == expected
    assert picture_identity(path, source, "coco/1") == "coco/1"


def test_scaled_and_compressed_copies_are_near(tmp_path):
    pictures = [ShapeRows(12)[number]["image"] for number in range(12)]
    hashes = np.array([perceptual_hash(picture) for picture in pictures], np.uint64)
    copies = []
    for picture in pictures:
        picture.resize((200, 200), Image.Resampling.LANCZOS).save(tmp_path / "copy.jpg", quality=80)
        copies.append(perceptual_hash(Image.open(tmp_path / "copy.jpg")))
    copies = np.array(copies, np.uint64)
    for number in range(12):
        distances = [int(one ^ copies[number]).bit_count() for one in hashes]
        assert np.argmin(distances) == number
        assert distances[number] <= 3


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=6), st.integers(0, 2**64 - 1))
def test_near_finds_every_pair_within_the_distance(value, flipped, other):
    """Images of nearly one color apart, which are never compared."""
    changed = value
    for bit in flipped:
        changed ^= 1 << bit
    found = near(np.array([value], np.uint64), np.array([other, changed], np.uint64))
    compared = [one for one in (other, changed) if 6 <= one.bit_count() <= 58]
    expected = 6 <= value.bit_count() <= 58 and any((value ^ one).bit_count() <= 3 for one in compared)
    assert found.tolist() == [expected]
