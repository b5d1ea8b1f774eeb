"""Refine on three nodes of one machine, of which one is removed in the middle; run by `test_ray.py`.

The first node holds the driver alone, as the others could not be removed otherwise before it has done all the work.

The arguments are the folders of the images, the checkpoint and the store, and a folder for files of this script.
"""

import os
import sys
from pathlib import Path
from threading import Event, Thread

import ray
from ray.cluster_utils import Cluster

from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import Item, Source, refine_dataset

SHARDS = 12


class Photos(Source):
    """The images of a folder in each of several shards; with `messages`, one actor stops and tells where it is."""

    def __init__(self, folder, messages=None):
        self.photos, self.messages = sorted(folder.glob("a*.png")), messages
        self.shards, self.total = SHARDS, SHARDS * len(self.photos)

    def describe(self):
        return {"kind": "photos"}

    def items(self, shard):
        for number, photo in enumerate(self.photos):
            if number == 1 and self.messages is not None:
                self.stop_once()
            yield Item(f"{shard}/{photo.name}", photo, "")

    def stop_once(self):
        """Wait to be killed in the middle of a shard, in one actor alone."""
        try:
            (self.messages / "chance").unlink()
        except FileNotFoundError:
            return
        (self.messages / "node").write_text(ray.get_runtime_context().get_node_id())  # a pipe, with a reader
        Event().wait()


def remove_node(cluster, messages):
    """Remove the node on which an actor is in the middle of a shard."""
    name = (messages / "node").read_text()
    (node,) = [one for one in cluster.worker_nodes if one.node_id == name]
    cluster.remove_node(node, allow_graceful=False)
    (messages / "removed").touch()


def refine_on_nodes(photos, checkpoint, out, messages):
    """Write the store on three nodes, and remove one of them."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    os.mkfifo(messages / "node")
    (messages / "chance").touch()
    watcher = Thread(target=remove_node, args=(cluster, messages), daemon=True)
    watcher.start()
    processor = LyricsProcessor.from_pretrained(checkpoint)
    refine_dataset(Photos(photos, messages), out, processor, engine="ray", workers=2)
    watcher.join()
    ray.shutdown()
    cluster.shutdown()


def main(photos, checkpoint, out, messages):
    """Write the same store on one process and on three nodes."""
    refine_dataset(Photos(photos), out / "local", LyricsProcessor.from_pretrained(checkpoint))
    refine_on_nodes(photos, checkpoint, out / "store", messages)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
