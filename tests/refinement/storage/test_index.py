"""An index finds all rows of a hash, and no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.refinement import StoreError
from lyrics.refinement.storage import index
from lyrics.refinement.storage.index import Index, hash_images, hash_key, hash_keys, write_index

HASHES = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1]), max_size=60)


@settings(max_examples=30)  # each is forced to the disk
@given(HASHES, st.sampled_from([4, 1 << 24]))
def test_every_row_is_found(tmp_path_factory, hashes, rows_in_memory):
    """Sorted at once or in parts, with and without equal hashes."""
    folder = tmp_path_factory.getbasetemp()
    values = np.array(hashes, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROWS_IN_MEMORY", rows_in_memory)
        groups = [rows.tolist() for rows in write_index(folder, "test", values)]
    places = {value: np.flatnonzero(values == value).tolist() for value in values}
    assert sorted(groups) == sorted(rows for rows in places.values() if len(rows) > 1)
    built = Index(folder, "test")
    for value, rows in places.items():
        assert built.find(int(value)) == rows
    for value in {5, 2**62, 2**64 - 2} - set(hashes):
        assert built.find(value) == []


def test_an_index_with_many_prefixes(tmp_path):
    hashes = hash_keys(str(number) for number in range(1000))
    assert list(write_index(tmp_path, "test", hashes)) == []
    built = Index(tmp_path, "test")
    assert [built.find(hash_key(str(number))) for number in range(1000)] == [[number] for number in range(1000)]
    assert [built.find(hash_key(str(number))) for number in range(1000, 2000)] == [[]] * 1000


def test_the_index_holds_the_first_64_bits_of_an_image_hash():
    hashes = np.arange(64, dtype=np.uint8).reshape(2, 32)
    assert hash_images(hashes).tolist() == [int.from_bytes(bytes(one[:8]), "little") for one in hashes]


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_files_are_named(tmp_path, damage):
    list(write_index(tmp_path, "test", np.arange(9, dtype=np.uint64)))
    file = tmp_path / "test.rows.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        np.save(file, np.zeros(9, np.float32))
    with pytest.raises(StoreError, match=r"test\.rows\.npy"):
        Index(tmp_path, "test")


def test_damaged_starts_are_named(tmp_path):
    """The starts of prefixes, in an order that cannot be, in a number that cannot be, and with a header of no array."""
    values = np.arange(100, dtype=np.uint64) << np.uint64(57)
    list(write_index(tmp_path, "test", values))
    file = tmp_path / "test.starts.npy"
    starts = np.load(file)
    np.save(file, np.concatenate([starts[:1], starts[1:-1] + 1000, starts[-1:]]).astype("<u8"))
    built = Index(tmp_path, "test")
    for value in values.tolist():
        with pytest.raises(StoreError, match=r"test\.\*\.npy are damaged"):
            built.find(value)
    np.save(file, starts[1:])
    with pytest.raises(StoreError, match=r"test\.\*\.npy do not belong together"):
        Index(tmp_path, "test")
    file.write_bytes(file.read_bytes().replace(b"{'descr'", b"('descr'"))
    with pytest.raises(StoreError, match=r"test\.starts\.npy"):
        Index(tmp_path, "test")
