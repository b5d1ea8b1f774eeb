"""Steps that do not need each other, at once: each in a process of its own with its share of the processor's cores.

Models of this size gain little from a second core: two steps with a core each are sooner done than one after the other
with both.
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

_LAST_LINES = 12  # of a log, when something went wrong


@dataclass(frozen=True)
class Task:
    """What one process does.

    Attributes:
        options: of the interpreter, such as `-m` and a module.
        log: the file that its output is added to.
        needs: names of the tasks that must have finished before.
    """

    options: Sequence[str]
    log: Path
    needs: Sequence[str] = ()


def run_together(tasks: Mapping[str, Task], at_once: int) -> None:
    """Run tasks in their order, as many at once as are allowed and need no other.

    Args:
        tasks: by name; a need that is no task is taken for met.
        at_once: how many.

    Raises:
        RuntimeError: when one fails, with the end of its log. Those that run with it are waited for.
    """
    waiting, running = dict(tasks), dict[Future[None], str]()
    with ThreadPoolExecutor(at_once) as pool:
        while waiting or running:
            unmet = {*waiting, *running.values()}
            ready = [name for name, task in waiting.items() if not unmet.intersection(task.needs)]
            for name in ready[: at_once - len(running)]:
                task = waiting.pop(name)
                logger.info("%s: begins; its log is %s", name, task.log)
                running[pool.submit(_run, task, at_once)] = name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                logger.info("%s: finished", name)


def _run(task: Task, at_once: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // at_once)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        command = [sys.executable, *task.options]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603 - itself
    if status:
        end = "\n".join(task.log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise RuntimeError(f"{' '.join(command)} failed with status {status}; {task.log} ends with:\n{end}")
