"""Manifest of a checkpoint: every file with its size and SHA-256, the step, the processes and the settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...modeling_lyrics.checkpoint_files import is_inside
from ...utils.atomic_files import sha256_of

MANIFEST = "manifest.json"
_ENTRIES = {"step", "num_ranks", "versions", "settings", "files", "checksum"}
PACKAGES = ("ziya-lyrics", "torch", "transformers", "accelerate")


class CheckpointError(ValueError):
    """Error for a checkpoint that a run cannot resume from."""


def write_manifest(folder: Path, step: int, num_ranks: int, settings: dict[str, Any] | None = None) -> None:
    """Write `manifest.json` with the size and checksum of every file in the folder.

    Args:
        folder: folder of a checkpoint, with all its other files.
        step: number of optimizer steps that were taken.
        num_ranks: number of processes that wrote the checkpoint.
        settings: settings of the run (`describe_settings`).
    """
    names = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    files = record_files(folder, (name for name in names if name != MANIFEST))
    versions = {name: version(name) for name in PACKAGES}
    manifest = {"step": step, "num_ranks": num_ranks, "versions": versions, "settings": settings or {}, "files": files}
    save_manifest(folder, manifest)


def record_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of a manifest for files of a folder, named relative to it."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def save_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest without its checksum, and the checksum with it; the file is written anew."""
    manifest = {name: value for name, value in manifest.items() if name != "checksum"}
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / MANIFEST).write_text(json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1))


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """Compare every file of a checkpoint with its manifest, and return the manifest.

    Raises:
        CheckpointError: if a file is missing, has another size or was changed; the message names the file.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing.")
        if (size := file.stat().st_size) != expected["size"]:
            raise CheckpointError(f"{file} has {size:,} bytes instead of {expected['size']:,}.")
        if sha256_of(file) != expected["sha256"]:
            raise CheckpointError(f"{file} was changed: its SHA-256 differs from the one in {MANIFEST}.")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint, and compare it with its own checksum; versions before 0.2 wrote none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if unknown := manifest.keys() - _ENTRIES:
            raise ValueError(f"it has an unknown entry {sorted(unknown)[0]!r}")
        if manifest.pop("checksum", None) not in (None, _checksum(manifest)):
            raise ValueError("its checksum is wrong")
        _ = manifest["step"] + manifest["num_ranks"]
        for name, expected in manifest["files"].items():
            if not is_inside(name):  # of a download, the files are links to the Hub's cache
                raise ValueError(f"it names a file outside the checkpoint: {name!r}")
            _ = expected["size"] + len(expected["sha256"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is incomplete: it has no {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
