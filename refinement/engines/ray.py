"""Engine on Ray Data: actors with a refiner make shards; only numbers of shards and facts about them travel.

Every machine of the cluster must see the source, the checkpoint and the store under the same paths. Another actor makes
the shards of a lost actor again; a shard is renamed when it is complete, so that nothing is stored twice.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from logging import WARNING
from typing import Any

import torch
from transformers.utils import logging

from ...utils.optional_imports import import_optional
from ..storage.shards import ShardFacts
from .local import as_portable
from .progress import Monitor
from .task import RefiningTask


def refine_on_ray(task: RefiningTask, shards: Sequence[int], monitor: Monitor, workers: int | None = None) -> None:
    """Make shards on the cluster that Ray is connected to, or else on this machine.

    Args:
        task: task with source, processor and store.
        shards: numbers of the shards to make.
        monitor: monitor that counts images.
        workers: int, number of actors; by default one per GPU of the cluster, or one without GPUs.

    Raises:
        ImportError: when Ray is not installed.
        StoreError, OSError, TooManyFailuresError: as `refine_dataset` does.
    """
    ray, data = import_optional("ray"), import_optional("ray.data")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=WARNING)
    data.DataContext.get_current().enable_progress_bars = False
    found = ray.cluster_resources()
    workers = min(workers or max(1, int(found.get("GPU", 0))), len(shards))
    gpus, cpus = (found.get(kind, 0) / workers for kind in ("GPU", "CPU"))
    numbers = data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    made = numbers.map_batches(
        ShardActor,
        fn_constructor_kwargs={"task": task, "threads": max(1, int(cpus)), "device": "cuda" if gpus else None},
        batch_size=1,
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=int(cpus) or cpus,
        num_gpus=min(1.0, gpus) or None,
    )
    for row in made.iter_rows():
        facts = pickle.loads(row["facts"])  # noqa: S301  (written by our own actors)
        if isinstance(facts, Exception):
            raise facts
        monitor.finished(row["shard"], facts)


class ShardActor:
    """Actor that makes shards, and keeps its refiner between them.

    Args:
        task: task with source, processor and store.
        threads: int, number of threads of torch.
        device: str, device of the refiner; by default the processor's.
    """

    def __init__(self, task: RefiningTask, threads: int, device: str | None) -> None:
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self.task = task
        if device is not None:
            task.processor.to(device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Make the shards of a batch of numbers; return pickled facts about each, or its error."""
        numbers = [int(number) for number in batch["shard"]]
        return {"shard": numbers, "facts": [pickle.dumps(self._make(number)) for number in numbers]}

    def _make(self, number: int) -> ShardFacts | Exception:
        try:
            return self.task.make_shard(number)
        except Exception as error:  # noqa: BLE001  (Ray would wrap it in an error of its own)
            return as_portable(error)
