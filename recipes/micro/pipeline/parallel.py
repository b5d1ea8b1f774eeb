"""Parallel execution of independent steps, each in its own process with a share of the CPU cores.

Models of this size gain little from a second core. Two steps with one core each finish sooner than one after the other
with both cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

_LOG_LINES = 12  # last lines of a log in an error message


@dataclass(frozen=True)
class Task:
    """Work of one Python process.

    Attributes:
        options: options of the interpreter, such as `-m` and a module.
        log: file that the output is appended to.
        needs: names of the tasks that must finish before.
    """

    options: Sequence[str]
    log: Path
    needs: Sequence[str] = ()


def run_tasks(tasks: Mapping[str, Task], max_parallel: int) -> None:
    """Run tasks in their order, in parallel where they do not depend on each other.

    Args:
        tasks: tasks by name. A dependency without a task counts as finished.
        max_parallel: maximum number of tasks that run at the same time.

    Raises:
        RuntimeError: a task failed. The message contains the end of its log. Running tasks finish, others do not start.
    """
    waiting, running = dict(tasks), dict[Future[None], str]()
    with ThreadPoolExecutor(max_parallel) as pool:
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            ready = [name for name, task in waiting.items() if not unfinished.intersection(task.needs)]
            for name in ready[: max_parallel - len(running)]:
                task = waiting.pop(name)
                logger.info("%s: starts, its log is %s", name, task.log)
                running[pool.submit(_run, task, max_parallel)] = name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                logger.info("%s: finished", name)


def _run(task: Task, max_parallel: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // max_parallel)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        command = [sys.executable, *task.options]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603 - itself
    if status:
        end = "\n".join(task.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise RuntimeError(f"{' '.join(command)} failed with status {status}; {task.log} ends with:\n{end}")
