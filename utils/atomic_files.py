"""Atomic writes: a reader sees a complete file or folder, or none.

Content is written to a hidden file or folder beside the target, forced to the disk, and renamed. An error or a full
disk leaves what was there before; a killed process leaves a hidden file that `remove_leftovers` removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..modeling_lyrics.checkpoint_files import naming_disk_errors

_ASIDE = ".tmp-"  # `.NAME.tmp-0123456789ab` becomes NAME
_LONGEST_NAME = 255  # bytes, on every usual file system
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))  # folders, on some shared file systems


@contextmanager
def write_file(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Write a file aside, and rename it to `path` when the block ends without an error.

    Args:
        path: path of the file, in an existing folder; an existing file is replaced.
        mode: `"wb"` or `"w"`.
        options: further arguments of `open` (`encoding`, `newline`, ...).

    Yields:
        The open file, a Python file: audit hooks see what C code writes through it.

    Raises:
        OSError: naming `path`, when it cannot be written; the existing file is then unchanged.
    """
    path = Path(path)
    aside = _name_aside(path)
    with naming_disk_errors(path):
        file = open(aside, mode.replace("w", "x"), **options)  # noqa: SIM115  (closed below, also after errors)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):  # closing writes the rest of the buffer, which fails again
                file.close()
            with suppress(OSError):
                os.remove(aside)
            raise
        sync_folder(path.parent)


@contextmanager
def write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a folder aside, and rename it to `path` when the block ends without an error.

    Args:
        path: path of the new folder, whose parent exists. An empty folder is replaced.

    Yields:
        The folder to write into. Everything below it is forced to the disk before it is renamed.

    Raises:
        FileExistsError: when `path` exists and is not an empty folder; `remove_folder` removes it.
        OSError: naming the file, when something cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not an empty folder.")
    aside = _name_aside(path)
    with naming_disk_errors(path):
        os.mkdir(aside)
        try:
            yield aside
            sync_tree(aside)
            if os.name == "nt" and path.exists():  # where a rename does not replace an empty folder
                os.rmdir(path)
            os.replace(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(path.parent)


def remove_folder(path: str | os.PathLike) -> None:
    """Remove a folder and its content; a reader sees the complete folder, or none."""
    path = Path(path)
    aside = _name_aside(path)
    os.rename(path, aside)
    sync_folder(path.parent)
    shutil.rmtree(aside)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the hidden files of killed writers from a folder. Hold a `FolderLock`: nobody else may be writing."""
    for aside in Path(folder).glob(f".*{_ASIDE}*"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def is_aside(name: str) -> bool:
    """Return whether a name is that of a hidden file or folder of an unfinished write."""
    return name.startswith(".") and _ASIDE in name


def sha256_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Force a folder and everything below it to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name))
        sync_folder(parent)


def sync_folder(path: str | os.PathLike) -> None:
    """Force the names in a folder to the disk, where the file system can; Windows opens no folder."""
    if os.name == "nt":
        return
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync(path: str | os.PathLike) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs what can be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_aside(path: Path) -> Path:
    ending = f"{_ASIDE}{uuid.uuid4().hex[:12]}"
    name = os.fsdecode(os.fsencode(path.name)[: _LONGEST_NAME - len(ending) - 1])
    return path.with_name(f".{name}{ending}")
