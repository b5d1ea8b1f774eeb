"""One writer at a time in a folder, also on a file system that several machines share."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from transformers.utils import logging

from .atomic_files import naming_file

logger = logging.get_logger(__name__)

LOCK_NAME = ".lock"


class FolderLockedError(OSError):
    """Another process is writing to the folder."""


class FolderLock:
    """Hold a folder for writing, as a context manager; a second writer gets a `FolderLockedError` at once.

    The lock is the file `.lock`, which says who holds it: machine, process, since when. It appears with its content, by
    a hard link, so that two machines cannot both make it. A lock whose process is dead is taken over on the machine
    where that process ran; on another one nobody can know, and the error says what to do.

    Args:
        folder: an existing folder.
        purpose: what the holder is doing, for the other one's error.
    """

    def __init__(self, folder: str | os.PathLike, purpose: str = "writing") -> None:
        self.path = Path(folder) / LOCK_NAME
        self.purpose = purpose
        self._content = b""

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderLockedError: naming the process that holds it.
        """
        owner = _this_process() | {"purpose": self.purpose, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        content = json.dumps(owner | {"id": uuid.uuid4().hex}).encode()
        while not (self._make(content) or self._take_over(content)):
            pass  # another process released or took the lock in between
        self._content = content

    def release(self) -> None:
        """Give the lock back, if it is still held by this process."""
        mine = bool(self._content) and json.loads(self._content)["pid"] == os.getpid()  # not after a fork
        if mine and _read(self.path) == self._content:
            os.remove(self.path)
        self._content = b""

    def _make(self, content: bytes) -> bool:
        aside = self._write_aside(content)
        try:
            os.link(aside, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._make_without_links(content)
        finally:
            aside.unlink(missing_ok=True)  # the holder may have removed it as a leftover
        return True

    def _write_aside(self, content: bytes) -> Path:
        aside = self.path.with_name(f"{LOCK_NAME}.tmp-{uuid.uuid4().hex[:12]}")
        try:
            with naming_file(aside):
                aside.write_bytes(content)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return aside

    def _make_without_links(self, content: bytes) -> bool:
        try:
            with open(self.path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def _take_over(self, content: bytes) -> bool:
        """Replace the lock of a dead process; of several that try, the kernel lets one."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            owner = _parse(os.pread(descriptor, 1 << 16, 0))
            if not self._is_current(descriptor):
                return False
            if not _is_dead(owner):
                raise FolderLockedError(self._explain(owner))
            logger.warning(f"{self.path.parent}: taking over the lock of process {owner['pid']}, which is dead.")
            os.replace(self._write_aside(content), self.path)
        finally:
            os.close(descriptor)
        return True

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _explain(self, owner: dict[str, Any]) -> str:
        folder = self.path.parent
        if not owner:
            return f"{folder} is locked by {self.path}, which does not say by whom. If nobody writes there, delete it."
        holder = f"process {owner['pid']} on {owner['host']} ({owner['purpose']}, since {owner['since']})"
        elsewhere = owner["host"] != socket.gethostname()
        advice = f"Wait for it, or delete {self.path} if it is gone" if elsewhere else "Wait for it"
        return f"{folder} is locked by {holder}. {advice}."


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid())}


def _start_of(pid: int) -> str | None:
    """When a living process of this machine started: numbers of processes are used again. `None` where unknown."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def _is_dead(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, and somebody else's
    return owner["started"] != _start_of(owner["pid"])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _parse(content: bytes) -> dict[str, Any]:
    try:
        return json.loads(content)
    except ValueError:
        return {}
