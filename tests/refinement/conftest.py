"""A micro checkpoint, a folder of images, and their store."""

import json
import shutil

import numpy as np
import pytest

from lyrics.assets import draw_table, write_random_checkpoint
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import RefinementStore, refine_dataset

from ..failpoints import Failpoints

SHARD_SIZE = 3


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder with a micro checkpoint."""
    folder = tmp_path_factory.mktemp("refiner") / "micro"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture
def loaded(checkpoint):
    """Processor of the checkpoint, new for every test; its refiner is loaded on first use."""
    return LyricsProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folder with seven images of several sizes and modes, a damaged image, and a text."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub" / "deep").mkdir(parents=True)
    for number in range(3):
        draw_table(64 + 16 * number, 48).save(folder / f"a{number}.png")
        draw_table(64, 80 + number).convert("L" if number else "P").save(folder / "sub" / f"b{number}.PNG")
    draw_table(70, 50).save(folder / "sub" / "deep" / "日本 c.jpg", quality=90)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture(scope="session")
def made(photos, checkpoint, tmp_path_factory):
    """Folder with the store of the photos: three shards, one failure."""
    folder = tmp_path_factory.mktemp("made") / "store"
    processor = LyricsProcessor.from_pretrained(checkpoint)
    refine_dataset(photos, folder, processor, shard_size=SHARD_SIZE, max_failure_rate=0.5)
    return folder


@pytest.fixture(scope="session")
def store(made):
    """Store of the photos, open."""
    return RefinementStore.open(made)


@pytest.fixture
def own_store(made, tmp_path):
    """Copy of the store that a test may damage."""
    return shutil.copytree(made, tmp_path / "store")


@pytest.fixture(scope="session")
def failpoints(checkpoint, made):
    """Process that forks for every run, with a processor that finds the photos in a store."""
    with Failpoints(
        "import os, json, pathlib, torch, datasets, pyarrow.parquet\n"
        "import lyrics.assets\n"
        "from lyrics.processing_lyrics import LyricsProcessor\n"
        "from lyrics.refinement import *\n"
        "torch.set_num_threads(1)\n"
        f"processor = LyricsProcessor.from_pretrained({str(checkpoint)!r})\n"
        "processor.refiner\n"
        f"processor.store = RefinementStore.open({str(made)!r})\n"
    ) as process:
        yield process


def contents(folder):
    """Content of every file below a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failures(folder):
    """Failed images of a store."""
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text("utf-8").splitlines()]


def assert_same_objects(stored, online):
    """Labels, tags, boxes and scores are equal, and features after rounding to half precision."""
    assert stored.labels == online.labels
    assert stored.tags == online.tags
    np.testing.assert_array_equal(stored.boxes, online.boxes)
    np.testing.assert_array_equal(stored.scores, online.scores)
    np.testing.assert_array_equal(stored.region_features, online.region_features.astype(np.float16))
