"""Where shards are made: in this process, or in processes of this machine with one refiner each.

A shard is written aside and depends on its number alone, so a worker that dies costs its unfinished shard, which
another one makes anew.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
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
    """Workers died again and again over one shard."""


def refine_here(task: RefiningTask, shards: Sequence[int], monitor: Monitor) -> None:
    """Make shards one after the other in this process."""
    for shard in shards:
        facts = task.make_shard(shard, lambda done, failures, shard=shard: monitor.progress(shard, done, failures))
        monitor.finished(shard, facts)


def refine_in_processes(
    task: RefiningTask, shards: Sequence[int], monitor: Monitor, workers: int, devices: Sequence[str] = ()
) -> None:
    """Make shards in `workers` processes.

    Args:
        devices: for the workers in turn; by default where the processor's refiner goes anyway.

    Raises:
        WorkerDiedError: when the worker of a shard died three times.
    """
    waiting, deaths = deque(shards), Counter[int]()
    crew = [_Worker(task, number, workers, devices) for number in range(min(workers, len(shards)))]
    try:
        while waiting or any(worker.shard is not None for worker in crew):
            for worker in crew:
                if worker.shard is None and waiting:
                    worker.give(waiting.popleft())
            for worker in _ready(crew):
                if (shard := worker.report(monitor)) is None:
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
                crew[crew.index(worker)] = _Worker(task, worker.number, workers, devices)
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """One process, the shard that it makes, and the pipe to it: nothing is shared that a dead worker could hold."""

    def __init__(self, task: RefiningTask, number: int, workers: int, devices: Sequence[str]) -> None:
        self.number = number
        self.shard: int | None = None
        # forked from a process that has imported everything and nothing more: CUDA would not survive a fork of this one
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pipe, other = context.Pipe()
        threads = max(1, torch.get_num_threads() // workers)
        device = devices[number % len(devices)] if devices else None
        self._process = context.Process(target=_work, args=(task, other, threads, device), daemon=True)
        self._process.start()
        other.close()

    @property
    def pipe(self) -> Any:
        return self._pipe

    def give(self, shard: int) -> None:
        self.shard = shard
        with suppress(OSError):  # it is dead, which `report` will notice
            self._pipe.send(shard)

    def report(self, monitor: Monitor) -> int | None:
        """Take one message. Returns the shard that was lost, if the worker has died."""
        assert self.shard is not None
        try:
            kind, *values = self._pipe.recv()
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
        """Kill the process, after `grace` seconds in which it may end. Returns its exit code."""
        self._process.join(grace)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        return self._process.exitcode


def _ready(crew: Sequence[_Worker]) -> Iterator[_Worker]:
    busy: dict[Any, _Worker] = {worker.pipe: worker for worker in crew if worker.shard is not None}
    return (busy[pipe] for pipe in wait(list(busy)))


def _work(task: RefiningTask, pipe: Connection, threads: int, device: str | None) -> None:
    """What a worker does until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which then kills it
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
        except Exception as error:  # noqa: BLE001  (raised where the run was started)
            pipe.send(("failed", as_portable(error)))


def as_portable(error: Exception) -> Exception:
    """The error as another process can have it, with its traceback as a note."""
    try:
        portable = pickle.loads(pickle.dumps(error))  # noqa: S301  (what was pickled just now)
    except Exception:  # noqa: BLE001  (errors of libraries fail in their own ways)
        portable = RuntimeError(f"{type(error).__name__}: {error}")
    portable.add_note("".join(traceback.format_exception(error)))
    return portable
