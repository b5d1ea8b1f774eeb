"""Folders of a model: a complete model, or not taken for one, whatever happens to their writer.

A model is written to a hidden subfolder, forced to the disk, and moved to its place file by file, so that the folder
may also hold checkpoints and logs, be a link, or be a mounted disk. The files that make a folder a model are moved
last, and those of an older model are removed first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic_files import naming_disk_errors, remove_leftovers, sync_folder, sync_tree
from .folder_lock import LOCK_NAME, FolderLock

STAGING = ".model.saving"  # subfolder that holds a model until it is complete
_MARKS = ("processor_config.json", "adapter_config.json", "config.json")  # moved last, in this order
_REPLACED = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "adapter_model.safetensors",
    "lyrics_adapter.json",
)


@contextmanager
def write_model(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a subfolder, and move its files to `folder` when the block ends without an error.

    Args:
        folder: folder of the model, created if missing. An older model in it is replaced; other files stay.

    Yields:
        The subfolder to write into.

    Raises:
        FolderLockedError: if another process writes a model there.
        OSError: naming `folder`, if the disk is full or fails.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    with naming_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(folder, "writing a model"):
                remove_leftovers(folder)
                staging = stage_model(folder)
                try:
                    yield staging
                except BaseException:
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
                place_model(folder)
        except BaseException:
            if is_new:
                with suppress(OSError):  # holds something that cannot be removed
                    folder.rmdir()
            raise


def stage_model(folder: Path) -> Path:
    """Create the empty subfolder for the files of a model, and return it."""
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def place_model(folder: Path) -> None:
    """Move the files of `stage_model` to their place in the folder, in place of those of an older model."""
    staging = folder / STAGING
    names = sorted(os.listdir(staging), key=lambda name: (_MARKS.index(name) if name in _MARKS else -1, name))
    if names:
        sync_tree(staging)
        _remove_older_model(folder)
    for name in names:
        if name in _MARKS:
            sync_folder(folder)
        target = folder / name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(staging / name, target)
    sync_folder(folder)
    staging.rmdir()


def _remove_older_model(folder: Path) -> None:
    """Remove the files that make a folder a model, then those that the new model may not replace."""
    for name in reversed(_MARKS):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    for pattern in _REPLACED:
        for file in folder.glob(pattern):
            file.unlink()


def holds_model(folder: Path) -> bool:
    """Return whether a folder holds a model or an adapter."""
    return any((folder / name).is_file() for name in _MARKS[1:])


def is_unfinished(folder: Path) -> bool:
    """Return whether a folder holds nothing, or what a killed writer of a model left there."""
    names = os.listdir(folder)
    if all(name.startswith(LOCK_NAME) for name in names):
        return True
    return STAGING in names and not holds_model(folder)
