"""The index on disk: values by key, in order, and no file left behind."""

from pathlib import Path

import pytest

from lyrics.datasets_lyrics.catalog.disk_index import DiskIndex


def test_values_come_back_in_order(tmp_path):
    with DiskIndex([(7, "a"), ("8", [1, {"b": None}]), ("7", "é")], tmp_path) as index:
        assert index.all(7) == ["a", "é"]
        assert index.get("8") == [1, {"b": None}]
        assert index.get(9) is None
        assert (len(index), index.count_keys(), index.count_found()) == (3, 2, 1)
    assert not list(tmp_path.iterdir())


def test_any_key_of_a_file_is_one(tmp_path):
    keys = ["\ud800", "é", float("nan"), [1, [2]], 10**40, None, ""]
    with DiskIndex(((key, number) for number, key in enumerate(keys)), tmp_path) as index:
        assert [index.get(key) for key in keys] == list(range(len(keys)))
        assert [index.get(key) for key in keys] == list(range(len(keys)))
        assert index.count_found() == index.count_keys() == len(keys)


def test_an_error_while_it_is_filled_leaves_no_file(tmp_path):
    def entries():
        yield 1, "a"
        raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        DiskIndex(entries(), tmp_path)
    assert not list(Path(tmp_path).iterdir())
