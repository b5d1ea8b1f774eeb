"""Worker processes: the same store as from one process, although workers die or fail."""

import multiprocessing
import os
import signal

import pytest
import torch

from lyrics.datasets_lyrics.open_data import open_source
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import Item, Source, StaleStoreError, refine_dataset
from lyrics.refinement.engines.local import WorkerDiedError
from lyrics.refinement.engines.task import RefiningTask
from lyrics.refinement.storage.manifest import Manifest

from ..conftest import SHARD_SIZE, contents


class KillingSource(Source):
    """Source that kills the worker that reads shard 1, once for each file `death*` in a folder."""

    def __init__(self, photos, folder):
        self.photos, self.folder, self.shards, self.total = sorted(photos.glob("a*.png")), folder, 3, 3

    def describe(self):
        return {"kind": "killing"}

    def items(self, shard):
        yield Item(f"{shard}.png", self.photos[shard], "")
        for death in sorted(self.folder.glob("death*")) if shard == 1 else ():
            if multiprocessing.parent_process() is not None:
                death.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def test_workers_write_the_same_store_although_one_is_killed(photos, checkpoint, loaded, tmp_path):
    """The lost shard is made again; shards do not depend on the numbers of workers and threads."""
    source = KillingSource(photos, tmp_path)
    torch.set_num_threads(2)
    try:
        refine_dataset(source, tmp_path / "one", LyricsProcessor.from_pretrained(checkpoint))
    finally:
        torch.set_num_threads(1)
    (tmp_path / "death").touch()
    refine_dataset(source, tmp_path / "two", loaded, workers=2)
    assert not (tmp_path / "death").exists()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_workers_without_a_fork_server(photos, made, loaded, monkeypatch, tmp_path):
    """As on Windows."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    refine_dataset(photos, tmp_path / "store", loaded, shard_size=SHARD_SIZE, max_failure_rate=0.5, workers=2)
    assert contents(tmp_path / "store") == contents(made)


def test_a_shard_that_kills_three_workers_stops_the_run(photos, loaded, tmp_path):
    for number in range(3):
        (tmp_path / f"death{number}").touch()
    with pytest.raises(WorkerDiedError, match="worker of shard 1 died 3 times, at last with exit code -9"):
        refine_dataset(KillingSource(photos, tmp_path), tmp_path / "store", loaded, workers=2)
    refine_dataset(KillingSource(photos, tmp_path), tmp_path / "store", loaded).verify()


def test_errors_of_a_worker_are_raised_in_the_parent(photos, loaded, tmp_path):
    source = KillingSource(photos, tmp_path)
    source.photos = source.photos[:1]
    with pytest.raises(IndexError, match="list index out of range") as caught:
        refine_dataset(source, tmp_path / "store", loaded, workers=2)
    assert "in items" in caught.value.__notes__[0]


def test_an_attached_refiner_cannot_go_to_workers(photos, processor, tmp_path):
    with pytest.raises(ValueError, match="cannot be pickled"):
        refine_dataset(photos, tmp_path / "store", processor, workers=2, shard_size=SHARD_SIZE, max_failure_rate=0.5)


def test_a_worker_with_another_refiner_is_refused(own_store, photos, checkpoint, made, tmp_path):
    """As on a machine of a cluster that holds other weights under the same path."""
    other = LyricsProcessor.from_pretrained(checkpoint)
    next(other.refiner.parameters()).data += 1
    task = RefiningTask(open_source(photos, 3), other, own_store, Manifest.load(made).rows, 8)
    with pytest.raises(StaleStoreError, match="refiner of this worker has the fingerprint"):
        task.make_shard(0)
