"""Refine on three nodes of one machine, of which one is removed in the middle; run by `test_ray.py`.

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
    """The images of a folder in each of several shards; an actor outside the first node stops once, and tells where."""

    def __init__(self, folder, messages, first_node=None):
        self.photos, self.messages, self.first_node = sorted(folder.glob("a*.png")), messages, first_node
        self.shards, self.total = SHARDS, SHARDS * len(self.photos)

    def describe(self):
        return {"kind": "photos"}

    def items(self, shard):
        for number, photo in enumerate(self.photos):
            if number == 1:
                self.stop_once()
            yield Item(f"{shard}/{photo.name}", photo, "")

    def stop_once(self):
        """Wait to be killed, on the first of the nodes that may be removed."""
        node = self.first_node and ray.get_runtime_context().get_node_id()
        if node == self.first_node:
            return
        try:
            (self.messages / "chance").unlink()  # one actor succeeds
        except FileNotFoundError:
            return
        (self.messages / "node").write_text(node)  # a pipe, which the watcher reads
        Event().wait()


def remove_node(cluster, messages):
    """Remove the node on which an actor is in the middle of a shard."""
    name = (messages / "node").read_text()
    (node,) = [one for one in cluster.worker_nodes if one.node_id == name]
    cluster.remove_node(node, allow_graceful=False)
    (messages / "removed").touch()


def main(photos, checkpoint, out, messages):
    """Write the same store on one process and on the cluster."""
    refine_dataset(Photos(photos, messages), out / "local", LyricsProcessor.from_pretrained(checkpoint))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    os.mkfifo(messages / "node")
    (messages / "chance").touch()
    watcher = Thread(target=remove_node, args=(cluster, messages), daemon=True)
    watcher.start()
    source = Photos(photos, messages, ray.get_runtime_context().get_node_id())
    refine_dataset(source, out / "store", LyricsProcessor.from_pretrained(checkpoint), engine="ray", workers=3)
    watcher.join()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
