"""Folder locks: one writer at a time in a folder, also on a file system that several machines share."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import lock_descriptor
from transformers.utils import logging

from .atomic_files import naming_disk_errors

logger = logging.get_logger(__name__)

LOCK_NAME = ".lock"  # both files of a lock begin with it
RECORD_SECONDS = 5  # patience with a holder that has not written its record yet
_NAMES = {"host", "pid", "purpose", "since"}  # in a record
_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK))


class FolderLockedError(OSError):
    """Another process is writing to the folder."""


class FolderLock:
    """Lock of a folder for writing, as a context manager; a second writer gets a `FolderLockedError` at once.

    A lock consists of two files. `.lock` is the record of the holder: machine, process, purpose, time. It is created
    exclusively, so that two machines cannot both create it. The operating system locks `.lock.process` for as long as
    the holder lives, so that a record of this machine without that lock belongs to a dead process and is taken over.
    Whether a process of another machine is alive cannot be known; the error then says which file to delete. The same
    holds for every process on a file system without locks.

    `filelock.FileLock` is not used, because it names no holder, and because it depends on the release of that library
    whether the locked file is removed.

    Args:
        folder: path, an existing folder.
        purpose: str, work of the holder, for the error that the second writer gets.
    """

    def __init__(self, folder: str | os.PathLike, purpose: str = "writing") -> None:
        self.path = Path(folder) / LOCK_NAME
        self.purpose = purpose
        self._process_path = self.path.with_name(f"{LOCK_NAME}.process")
        self._descriptor, self._file_system_locks = -1, True
        self._record, self._pid = b"", 0

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Acquire the lock.

        Raises:
            FolderLockedError: naming the process that holds it.
        """
        deadline = time.monotonic() + RECORD_SECONDS
        while not self._lock_process_file():
            owner = self._read_owner()
            if owner is not None or time.monotonic() > deadline:
                raise FolderLockedError(self._explain(owner or {}))
            time.sleep(0.01)  # the holder is about to write its record, or has just removed it
        try:
            self._create_record()
        except BaseException:
            self._unlock_process_file()
            raise

    def release(self) -> None:
        """Release the lock, if this process holds it; a fork of the holder does not."""
        if self._record and self._pid == os.getpid():
            with suppress(FileNotFoundError):
                if self.path.read_bytes() == self._record:
                    os.remove(self.path)
            self._unlock_process_file()
        self._record = b""

    def _lock_process_file(self) -> bool:
        descriptor = os.open(self._process_path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(FileNotFoundError):  # the last holder removes the file when it releases the lock
            try:
                if self._lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(self._process_path)):
                    self._descriptor, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return descriptor < 0

    def _lock(self, descriptor: int) -> bool:
        try:
            return lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._file_system_locks = False
            return True

    def _unlock_process_file(self) -> None:
        """Remove the locked file, and close it, which unlocks it.

        Whoever has opened the file meanwhile finds that it was removed. Windows removes no open file, so that it is
        closed first there; a file that another process has opened meanwhile then stays.
        """
        if os.name == "nt":
            os.close(self._descriptor)
        with suppress(OSError):
            os.remove(self._process_path)
        if os.name != "nt":
            os.close(self._descriptor)
        self._descriptor = -1

    def _create_record(self) -> None:
        """Write the holder's record, in place of that of a dead process of this machine."""
        if (owner := self._read_owner()) is not None:
            if not self._file_system_locks or owner.get("host") != socket.gethostname():
                raise FolderLockedError(self._explain(owner))
            logger.warning(f"{self.path.parent}: taking over the lock of process {owner['pid']}, which is dead.")
            os.remove(self.path)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "purpose": self.purpose}
        owner |= {"since": time.strftime("%Y-%m-%d %H:%M:%S %z"), "id": uuid.uuid4().hex}
        record = json.dumps(owner).encode()
        aside = self.path.with_name(f"{LOCK_NAME}.tmp-{owner['id'][:12]}")
        try:
            with naming_disk_errors(aside):
                aside.write_bytes(record)
            self._publish(aside, record)
        except FileExistsError:  # by another machine, on a file system whose locks do not reach it
            raise FolderLockedError(self._explain(self._read_owner() or {})) from None
        finally:
            aside.unlink(missing_ok=True)  # may be removed already, as a leftover
        self._record, self._pid = record, os.getpid()

    def _publish(self, aside: Path, record: bytes) -> None:
        try:
            os.link(aside, self.path)  # fails where the file exists, and no reader sees a part of it
        except FileExistsError:
            raise
        except OSError:  # the file system has no hard links
            with open(self.path, "xb") as file:
                file.write(record)

    def _read_owner(self) -> dict[str, Any] | None:
        """Return the record: `None` without one, and an empty dictionary where it cannot be understood."""
        try:
            owner = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) and owner.keys() >= _NAMES else {}

    def _explain(self, owner: dict[str, Any]) -> str:
        folder = self.path.parent
        if not owner:
            return f"{folder} is locked by {self.path}, which does not say by whom. If nobody writes there, delete it."
        holder = f"process {owner['pid']} on {owner['host']} ({owner['purpose']}, since {owner['since']})"
        is_known_alive = self._file_system_locks and owner["host"] == socket.gethostname()
        advice = "Wait for it" if is_known_alive else f"Wait for it, or delete {self.path} if it is gone"
        return f"{folder} is locked by {holder}. {advice}."
