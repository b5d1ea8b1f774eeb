"""Local engines: shards are made in this process, or in worker processes with one refiner each.

The pool is not one of `concurrent.futures`, whose pools end all workers when one of them dies: here a dead worker costs
only its unfinished shard, and the error names that shard and the exit code.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from transformers.utils import logging

from .progress import Monitor
from .task import RefiningTask

logger = logging.get_logger(__name__)

ATTEMPTS = 3  # at a shard whose worker dies


class WorkerDiedError(ChildProcessError):
    """The workers of one shard died in every attempt."""


def refine_here(task: RefiningTask, shards: Sequence[int], monitor: Monitor) -> None:
    """Make shards one after the other in this process."""
    for shard in shards:
        facts = task.make_shard(shard, lambda done, failures, shard=shard: monitor.progress(shard, done, failures))
        monitor.finished(shard, facts)


def refine_in_processes(
    task: RefiningTask, shards: Sequence[int], monitor: Monitor, workers: int, devices: Sequence[str] = ()
) -> None:
    """Make shards in worker processes.

    Args:
        task: task with source, processor and store.
        shards: numbers of the shards to make.
        monitor: monitor that counts images.
        workers: int, number of processes.
        devices: devices of the workers in turn; by default the processor's.

    Raises:
        WorkerDiedError: when the workers of a shard died three times.
    """
    waiting, deaths = deque(shards), Counter[int]()
    pool = [_Worker(task, number, workers, devices) for number in range(min(workers, len(shards)))]
    try:
        while waiting or any(worker.shard is not None for worker in pool):
            for worker in pool:
                if worker.shard is None and waiting:
                    worker.assign(waiting.popleft())
            busy: dict[Any, _Worker] = {worker.pipe: worker for worker in pool if worker.shard is not None}
            for worker in (busy[pipe] for pipe in wait(list(busy))):
                if (shard := worker.receive(monitor)) is None:
                    continue
                deaths[shard] += 1
                monitor.lost(shard)
                code = worker.stop(grace=5)
                logger.warning(f"The worker of shard {shard} died (exit code {code}); another one makes it anew.")
                if deaths[shard] == ATTEMPTS:
                    raise WorkerDiedError(
                        f"The worker of shard {shard} died {ATTEMPTS} times, at last with exit code {code}. With -9 "
                        "there was too little memory: take fewer workers or a smaller batch size."
                    )
                waiting.appendleft(shard)
                pool[pool.index(worker)] = _Worker(task, worker.number, workers, devices)
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """Worker process with its shard and its own pipe; no lock or queue is shared that a dead worker could hold."""

    def __init__(self, task: RefiningTask, number: int, workers: int, devices: Sequence[str]) -> None:
        self.number = number
        self.shard: int | None = None
        # CUDA does not survive a fork of this process. A fork server forks from a process that only has the imports;
        # Windows has none, and starts each worker anew.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])
        self.pipe, other = context.Pipe()
        threads = max(1, torch.get_num_threads() // workers)
        device = devices[number % len(devices)] if devices else None
        self._process = context.Process(target=_work, args=(task, other, threads, device), daemon=True)
        self._process.start()
        other.close()

    def assign(self, shard: int) -> None:
        """Send the number of a shard to the process."""
        self.shard = shard
        with suppress(OSError):  # the process is dead, which `receive` will notice
            self.pipe.send(shard)

    def receive(self, monitor: Monitor) -> int | None:
        """Receive one message. Returns the number of the lost shard if the process died."""
        assert self.shard is not None
        try:
            kind, *values = self.pipe.recv()
        except (EOFError, OSError):
            return self.shard
        if kind == "progress":
            monitor.progress(self.shard, *values)
        elif kind == "finished":
            monitor.finished(self.shard, *values)
            self.shard = None
        else:
            raise values[0]
        return None

    def stop(self, grace: float = 0) -> int | None:
        """Kill the process if it does not end within `grace` seconds. Returns its exit code."""
        self._process.join(grace)
        self._process.kill()
        self._process.join()
        self.pipe.close()
        return self._process.exitcode


def _work(task: RefiningTask, pipe: Connection, threads: int, device: str | None) -> None:
    """Make shards in a worker process until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which kills its workers
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    if device is not None:
        task.processor.to(device)
    while True:
        try:
            shard = pipe.recv()
        except EOFError:
            return
        try:
            facts = task.make_shard(shard, lambda done, failures: pipe.send(("progress", done, failures)))
            pipe.send(("finished", facts))
        except Exception as error:  # noqa: BLE001  (raised in the parent)
            pipe.send(("failed", as_portable(error)))


def as_portable(error: Exception) -> Exception:
    """Return an error that another process can unpickle, with its traceback as a note."""
    try:
        portable = pickle.loads(pickle.dumps(error))  # noqa: S301  (pickled in the same line)
    except Exception:  # noqa: BLE001  (errors of libraries fail to pickle in their own ways)
        portable = RuntimeError(f"{type(error).__name__}: {error}")
    portable.add_note("".join(traceback.format_exception(error)))
    return portable
