"""Shards return the rows that were written, or raise an error."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.processing_lyrics import VisualObjects
from lyrics.refinement import StoreError
from lyrics.refinement.storage.rows import Row, RowFormat, decode_mask, encode_mask, prepare_objects
from lyrics.refinement.storage.shards import ShardFile, write_shard

FORMAT = RowFormat("0" * 64, "mask", 6, masks=True, rows_per_batch=2)
WORDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4)


def random_boxes(random, count):
    return np.sort(random.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)


@st.composite
def visual_objects(draw, features=None):
    """Objects with any labels, any number of region features, with or without masks."""
    labels = draw(WORDS)
    count, seed = len(labels), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    masks = random.random((count, *draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))) > 0.5
    return VisualObjects(
        labels,
        random_boxes(random, count),
        random.random(count, np.float32),
        random.standard_normal((draw(st.sampled_from([count, 0, 3])), FORMAT.region_feature_size), np.float32),
        masks if draw(st.booleans()) else None,
        draw(WORDS),
    )


@st.composite
def some_rows(draw):
    hashes = st.binary(min_size=32, max_size=32)
    keys = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=10), max_size=7, unique=True))
    return [
        Row(
            key,
            draw(hashes),
            draw(st.none() | hashes),
            draw(st.integers(1, 2**31 - 1)),
            draw(st.integers(1, 9999)),
            prepare_objects(draw(visual_objects()), FORMAT),
        )
        for key in keys
    ]


def write(folder, rows, row_format=FORMAT):
    with write_shard(folder / "00000000.arrow", row_format) as shard:
        for row in rows:
            shard.append(row)
    return ShardFile(folder, shard.receipt([]).facts, row_format)


@settings(max_examples=40)  # each is forced to the disk
@given(some_rows())
def test_round_trip(tmp_path_factory, rows):
    """Rows with any objects, in batches of two; masks are returned on request."""
    shard = write(tmp_path_factory.getbasetemp(), rows).open()
    assert [shard.row(index, masks=True) for index in range(len(shard))] == rows
    for index, row in enumerate(rows):
        assert shard.key(index) == row.key
        assert shard.image_hash(index) == row.image_hash
        assert shard.row(index).objects == dataclasses.replace(row.objects, masks=None)
        assert shard.row(index).objects.region_features.shape[1] == FORMAT.region_feature_size


def three_rows():
    random = np.random.default_rng(0)
    return [
        Row(
            f"key {index}",
            random.bytes(32),
            random.bytes(32) if index else None,
            10 + index,
            20,
            prepare_objects(
                VisualObjects(
                    ["ä", "b c"][:count],
                    random_boxes(random, count),
                    random.random(count),
                    random.random((count, 6)),
                    random.random((count, 3, 4)) > 0.5,
                    ["tag"],
                ),
                FORMAT,
            ),
        )
        for index, count in enumerate([2, 0, 1])
    ]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shard"), three_rows())


@settings(max_examples=500)
@given(st.data())
def test_a_flipped_bit_never_gives_a_wrong_row(shard, tmp_path_factory, data):
    """Every row is correct or an error that names the file, wherever the bit is."""
    content = bytearray(shard.path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder = tmp_path_factory.getbasetemp()
    flipped = dataclasses.replace(shard, folder=folder)
    flipped.path.write_bytes(content)
    opened, error = attempt(flipped.open)
    assert error is None or str(flipped.path) in error
    for index, row in enumerate(three_rows() if opened else ()):
        found, error = attempt(lambda index=index: opened.row(index, masks=True))
        assert found == row or f"{flipped.path}: row {index} is damaged" in error


def attempt(call):
    """Result of a call, or the message of its error."""
    try:
        return call(), None
    except StoreError as error:
        return None, str(error)


def test_truncated_and_missing_shards_are_named(tmp_path):
    shard = write(tmp_path, three_rows())
    content = shard.path.read_bytes()
    for size in range(0, len(content), 101):
        shard.path.write_bytes(content[:size])
        with pytest.raises(StoreError, match=r"00000000\.arrow: has [\d,]+ bytes instead of [\d,]+: it was cut"):
            shard.open()
    shard.path.unlink()
    with pytest.raises(StoreError, match=r"00000000\.arrow"):
        shard.open()


def test_a_shard_of_another_store_is_refused(tmp_path):
    shard = write(tmp_path, [])
    other = dataclasses.replace(FORMAT, fingerprint="1" * 64)
    with pytest.raises(StoreError, match="belongs to another store"):
        dataclasses.replace(shard, row_format=other).open()


def test_the_size_of_an_image_is_bounded(tmp_path):
    """At most 10 kB with 16 objects of 260 numbers, their tags included."""
    row_format = RowFormat("0" * 64, "mask", 260)
    random = np.random.default_rng(0)
    labels = [f"a long label {index}" for index in range(16)]
    objects = VisualObjects(labels, random_boxes(random, 16), random.random(16), random.random((16, 260)), tags=labels)
    row = Row(
        "a/key/of/thirty/letters/000000.jpg", bytes(32), bytes(32), 640, 480, prepare_objects(objects, row_format)
    )
    shard = write(tmp_path, [row] * 1000, row_format)
    assert shard.path.stat().st_size < 10_000 * 1000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"region_features": np.full((1, 6), 1e6)}, "beyond the range of half precision"),
        ({"region_features": np.zeros((1, 7))}, "have width 7, but this store's have 6"),
    ],
)
def test_unfit_region_features_are_refused(changes, reason):
    values = {"labels": ["a"], "boxes": np.zeros((1, 4)), "scores": [1.0], "region_features": np.zeros((1, 6))}
    with pytest.raises(ValueError, match=reason):
        prepare_objects(VisualObjects(**values | changes), FORMAT)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_masks_as_run_lengths(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    runs = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(runs, height, width), mask)
    assert runs.sum() == height * width
    values = itertools.cycle([False, True])
    assert [value for run, value in zip(runs, values, strict=False) for _ in range(run)] == mask.T.flatten().tolist()


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="Runs of 5 pixels for a mask of 2 x 3"):
        decode_mask([2, 3], 2, 3)
