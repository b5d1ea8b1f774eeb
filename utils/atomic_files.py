"""Files and folders of which a reader never sees a half.

What is written goes to a hidden neighbour first, is forced to the disk, and takes its name by one rename. An error or a
full disk leaves what was there before; a killed process leaves a neighbour that `remove_leftovers` finds.
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

_ASIDE = ".tmp-"  # `.NAME.tmp-0123456789ab` is on its way to NAME
_LONGEST_NAME = 255  # bytes, on every usual file system
_DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))  # folders, on some shared file systems


@contextmanager
def write_file(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Write a file aside; it takes its name when the block ends, unless the block raises.

    Args:
        path: a file, whose folder exists; what it held is replaced.
        mode: `"wb"` or `"w"`.
        options: of `open` (`encoding`, `newline`, ...).

    Yields:
        The open file. It is a Python file, so that what C code writes through it is seen by audit hooks.

    Raises:
        OSError: naming `path`, when it cannot be written; what it held is then still there.
    """
    path = Path(path)
    aside = _name_aside(path)
    with naming_file(path):
        file = open(aside, mode.replace("w", "x"), **options)  # noqa: SIM115  (closed below, also on errors)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):  # closing writes what is left, which fails again
                file.close()
            with suppress(OSError):
                os.remove(aside)
            raise
        sync_folder(path.parent)


@contextmanager
def write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a folder aside; it takes its name when the block ends, unless the block raises.

    Args:
        path: of the new folder, whose parent exists. An empty folder is replaced.

    Yields:
        The folder to write into. Everything below it is forced to the disk before it takes its name.

    Raises:
        FileExistsError: when there is something at `path` already; `remove_folder` removes it.
        OSError: naming the file, when something cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not an empty folder.")
    aside = _name_aside(path)
    with naming_file(path):
        os.mkdir(aside)
        try:
            yield aside
            sync_tree(aside)
            os.replace(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(path.parent)


def remove_folder(path: str | os.PathLike) -> None:
    """Remove a folder with all that it holds; a reader sees the whole or nothing."""
    path = Path(path)
    aside = _name_aside(path)
    os.rename(path, aside)
    sync_folder(path.parent)
    shutil.rmtree(aside)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove what killed writers left in a folder. Nobody else may be writing there: hold a `FolderLock`."""
    for aside in Path(folder).glob(f".*{_ASIDE}*"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def is_aside(name: str) -> bool:
    """Whether a file or folder of this name is still being written, or was left by a killed writer."""
    return name.startswith(".") and _ASIDE in name


def sync_folder(path: str | os.PathLike) -> None:
    """Force the names in a folder to the disk, where its file system can."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """A full disk does not say where: name the file in errors of the block that say no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_aside(path: Path) -> Path:
    ending = f"{_ASIDE}{uuid.uuid4().hex[:12]}"
    name = os.fsdecode(os.fsencode(path.name)[: _LONGEST_NAME - len(ending) - 1])
    return path.with_name(f".{name}{ending}")


def _sync(path: str | os.PathLike) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force a folder and everything below it to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name))
        sync_folder(parent)
