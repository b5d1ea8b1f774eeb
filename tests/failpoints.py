"""Kill a program at every file operation in turn, and fill its disk, without a hook in the library.

A `Failpoints` process imports what is needed once, and forks for each run. In the fork an audit hook counts the file
operations below a folder (opening for writing, rename, link, mkdir, remove, rmdir, truncate) and sends SIGKILL to its
own process just before the n-th. What C code opens on its own raises no audit event: hand it a Python file.

    with Failpoints("from lyrics.refinement import write_file") as failpoints:
        for run in failpoints.kill_everywhere("with write_file(f'{folder}/x') as file: ...", tmp_path, reset):
            ...  # `reset()` was called, then the code was killed before `run.operation`: what is there now?

The last run of `kill_everywhere` is the one that was not killed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# event -> positions of its paths and of the folder descriptors that they are relative to
PATHS = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
}


@dataclass(frozen=True)
class Run:
    """What became of a program.

    Attributes:
        killed: whether it was, before `operation`.
        operation: such as `os.rename .store.tmp-12 store`, relative to the folder.
        error: the traceback of a program that raised.
        operations: of a program that was not killed.
    """

    killed: bool
    operation: str | None = None
    error: str | None = None
    operations: list[str] = field(default_factory=list)


class Failpoints:
    """A process that has imported everything, and forks for every run; a context manager.

    Args:
        setup: code that is executed once; its names are there in every run.
    """

    def __init__(self, setup: str = "") -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
        answer = self._ask({"setup": setup})
        assert answer["error"] is None, answer["error"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, code: str, folder: Path | str, kill_at: int | None = None, **names: Any) -> Run:
        """Run code in a fork, and kill it before its n-th file operation below `folder`.

        Args:
            folder: also a variable of the code, a string.
            names: further variables of the code; anything that JSON can hold.
        """
        return Run(**self._ask({"code": code, "folder": str(folder), "kill_at": kill_at, "names": names}))

    def kill_everywhere(
        self, code: str, folder: Path | str, reset: Callable[[], Any] = lambda: None, **names: Any
    ) -> Iterator[Run]:
        """Run code again and again, killed before its first operation, its second, ..., until it completes."""
        for kill_at in range(1, 100_000):
            reset()
            run = self.run(code, folder, kill_at, **names)
            assert run.error is None, run.error
            yield run
            if not run.killed:
                assert kill_at > 1, "this code did nothing below the folder"
                return

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """In the block no file grows beyond `largest_file` bytes: writing more is an `OSError`, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# ------------------------------------------------------------------------------------------------- the other process


def _operation(event: str, arguments: tuple, folder: str) -> str | None:
    """A file operation below the folder as text, or `None` for anything else."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or path is None or not flags & WRITING:
            return None
        paths = [(path, None)]
    elif event in PATHS:
        paths = [
            (arguments[position], None if at is None else arguments[at])
            for position, at in PATHS[event]
            if not isinstance(arguments[position], int)
        ]
    else:
        return None
    names = [_absolute(*one) for one in paths]
    if not any(name.startswith(folder + os.sep) for name in names):
        return None
    return " ".join([event, *(os.path.relpath(name, folder) for name in names)])


def _absolute(path: Any, descriptor: int | None) -> str:
    path = os.fsdecode(path)
    if descriptor is not None and descriptor >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
    return os.path.abspath(path)


def _run_in_fork(request: dict[str, Any], names: dict[str, Any], report: int) -> None:
    folder, kill_at, operations = os.path.abspath(request["folder"]), request["kill_at"], []

    def hook(event: str, arguments: tuple) -> None:
        if (operation := _operation(event, arguments, folder)) is None:
            return
        operations.append(operation)
        if len(operations) == kill_at:
            os.write(report, json.dumps({"killed": True, "operation": operation}).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    error = None
    code = compile(request["code"], "<failpoints>", "exec")
    sys.addaudithook(hook)
    try:
        exec(code, names | request["names"] | {"folder": request["folder"]})
    except BaseException:  # noqa: BLE001  (told to the test)
        error = traceback.format_exc()
    os.write(report, json.dumps({"killed": False, "error": error, "operations": operations}).encode())


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code prints
    names: dict[str, Any] = {"__name__": "__failpoints__"}
    for line in sys.stdin:
        request = json.loads(line)
        if "setup" in request:
            answer = {"error": None}
            try:
                exec(compile(request["setup"], "<failpoints>", "exec"), names)
            except BaseException:  # noqa: BLE001  (told to the test)
                answer["error"] = traceback.format_exc()
            print(json.dumps(answer), file=answers, flush=True)
            continue
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _run_in_fork(request, names, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as report:
            answer = report.read()
        os.waitpid(child, 0)
        print(answer or json.dumps({"killed": False, "error": "the process died"}), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
