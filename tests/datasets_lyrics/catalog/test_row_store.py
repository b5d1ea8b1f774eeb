"""Rows of the catalog on disk: opened by one word, read again after a change, guarded, and usable for both stages."""

import os

import datasets
import pytest
from PIL import Image

from lyrics.datasets_lyrics.catalog.registry import open_word
from lyrics.datasets_lyrics.catalog.row_store import fingerprint
from lyrics.datasets_lyrics.catalog.rows import canonical_rows
from lyrics.datasets_lyrics.open_data import kind_of, open_rows, open_source

from .data_sets import put, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("name", ["vqav2", "refcoco", "flickr30k_entities", "llava_mix665k", "yolo", "scienceqa"])
def test_stored_rows_are_the_rows_that_were_read(name, tmp_path):
    root = write(name, tmp_path)
    word = f"{name}:{root}"
    assert kind_of(word) == "catalog"
    rows = open_rows(word)
    expected = list(canonical_rows(open_word(word)))
    assert len(rows) == len(expected)
    for number, row in enumerate(expected):
        paths = [str(root / path) for path in row["images"]]
        assert rows[number] == {**row, "images": paths, "image": paths[0] if paths else None}


def test_a_name_without_a_folder_is_no_hub_id():
    with pytest.raises(ValueError, match="write vqav2:FOLDER"):
        kind_of("vqav2")


def test_splits_have_their_usual_words(tmp_path):
    root = write("coco_karpathy", tmp_path)
    assert len(open_rows(f"coco_karpathy:{root}", split="train")) == 2
    assert len(open_rows(f"coco_karpathy/test:{root}", split="train")) == 1
    with pytest.raises(ValueError, match="no split 'dev'"):
        open_rows(f"coco_karpathy:{root}", split="dev")
    root = write("vizwiz", tmp_path)
    (root / "train.json").rename(root / "val.json")
    os.rename(root / "train", root / "val")
    assert len(open_rows(f"vizwiz:{root}", split="validation")) == 1


def test_a_table_has_no_splits(tmp_path):
    """The file that is named for evaluation is read, though the command asks for the validation split."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "held_out.csv").write_text("file,question,answer\na.png,What?,Black.\n")
    assert len(open_rows(f"table:{tmp_path / 'held_out.csv'}", split="validation")) == 1
    with pytest.raises(ValueError, match="split"):
        open_rows(f"table:{tmp_path}", split="validation")


def test_a_change_is_noticed_and_no_change_reads_nothing(tmp_path, cache):
    root = write("vqav2", tmp_path)
    word = f"vqav2:{root}"
    assert len(open_rows(word)) == 2
    stored = next(cache.glob("lyrics/*/rows.arrow"))
    written = stored.stat().st_mtime_ns
    assert len(open_rows(word)) == 2
    assert stored.stat().st_mtime_ns == written
    before = fingerprint(open_word(word))
    put(root, "train2014/COCO_train2014_000000000008.jpg")  # the image that was missing
    assert fingerprint(open_word(word)) != before
    assert len(open_rows(word)) == 3


def test_what_was_left_out_is_told_each_time(tmp_path, caplog):
    """Also when the rows come from the cache."""
    import logging

    word = f"vqav2:{write('vqav2', tmp_path)}"
    logger = logging.getLogger("lyrics")
    for _ in range(2):
        messages = []
        handler = logging.Handler()
        handler.emit = lambda record, messages=messages: messages.append(record.getMessage())
        logger.addHandler(handler)
        try:
            open_rows(word)
        finally:
            logger.removeHandler(handler)
        assert "missing image: 1" in "".join(messages)


def test_a_link_out_of_the_folder_needs_a_root_that_holds_it(tmp_path):
    root = write("table", tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    os.rename(root / "a.jpg", tmp_path / "elsewhere/a.jpg")
    os.symlink(tmp_path / "elsewhere/a.jpg", root / "a.jpg")
    with pytest.raises(ValueError, match="lies outside"):
        open_rows(f"table:{root}")[0]
    row = open_rows(f"table:{root}", image_root=tmp_path)[0]
    assert row["images"] == [str(tmp_path / "elsewhere/a.jpg")]


def test_the_first_stage_needs_captions(tmp_path):
    with pytest.raises(ValueError, match="refcoco has no captions"):
        open_rows(f"refcoco:{write('refcoco', tmp_path)}", need_captions=True)
    row = open_rows(f"coco_captions:{write('coco_captions', tmp_path)}", need_captions=True)[0]
    assert row["caption"] == ["A dog runs.", "A brown dog."]
    assert row["image"].endswith("train2014/COCO_train2014_000000000007.jpg")


def test_a_store_refines_each_picture_once(tmp_path):
    root = write("vqav2", tmp_path)
    source = open_source(f"vqav2:{root}")
    (item,) = source.items(0)
    assert item.key == "train2014/COCO_train2014_000000000007.jpg"
    assert item.image == root / item.key
    with pytest.raises(ValueError, match="not read as a stream"):
        open_source(f"vqav2:{root}", streaming=True)
