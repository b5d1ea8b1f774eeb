"""Manifest of a store: its refiner, its source, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Self

from ...utils.atomic_files import write_file
from .errors import StoreError
from .refiner_identity import RefinerIdentity
from .rows import RowFormat
from .shards import ShardFacts, ShardFile

MANIFEST = "manifest.json"
SHARDS = "shards"
FORMAT = "lyrics-refinement-store"
VERSION = 1
_TYPES = {"str": str, "int": int, "bool": bool}
LIBRARIES = ("ziya-lyrics", "torch", "transformers", "pillow", "numpy", "pyarrow")


@dataclass(frozen=True)
class Manifest:
    """Description of a store.

    Attributes:
        refiner: identity of the refiner.
        rows: format that all rows have in common.
        source: dictionary, description of the data set by itself.
        plan: dictionary with `shards` and `shard_size`: how the work is divided.
        versions: versions of libraries by name, as of the store's creation.
        shards: facts about the finished shards; empty until all are finished.
        files: SHA-256 of the other files by path; empty until the store is complete.
    """

    refiner: RefinerIdentity
    rows: RowFormat
    source: dict[str, Any]
    plan: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in LIBRARIES})
    shards: tuple[ShardFacts, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every shard and every index is finished."""
        return bool(self.files)

    @property
    def failure_count(self) -> int:
        """Number of images that could not be refined."""
        return sum(shard.failures for shard in self.shards)

    def shard_files(self, folder: Path) -> list[ShardFile]:
        """Return the finished shards of the store in this folder."""
        return [ShardFile(folder / SHARDS, facts, self.rows) for facts in self.shards]

    def save(self, folder: Path) -> None:
        """Write the manifest into the folder of its store."""
        values = {"format": FORMAT, "version": VERSION, "complete": self.complete, **asdict(self)}
        values["rows"] = self.rows.to_dict()
        with write_file(folder / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(values | {"checksum": _checksum(values)}, file, indent=1, sort_keys=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the manifest of the store in this folder.

        Raises:
            StoreError: naming the file, when it is missing, damaged, has an unknown version, or names files outside the
                store.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: {folder} is not a store.") from None
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StoreError(f"{path} is not the manifest of a store.")
        if values.pop("checksum", None) != _checksum(values):
            raise StoreError(f"{path} is damaged: its checksum is wrong.")
        if values.get("version") != VERSION:
            raise StoreError(f"{path} has version {values.get('version')}; this package reads version {VERSION}.")
        try:
            manifest = cls(
                refiner=RefinerIdentity(**values["refiner"]),
                rows=RowFormat.from_dict(values["rows"]),
                shards=tuple(ShardFacts(**shard) for shard in values["shards"]),
                **{name: dict(values[name]) for name in ("source", "plan", "versions", "files")},
            )
            for part in (manifest.refiner, manifest.rows, *manifest.shards):
                _check_types(part)
            names = [*(shard.name for shard in manifest.shards), *manifest.files]
            outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in re.split(r"[\\/]", name)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path} lacks an entry, or has one of another type: {error}") from error
        if outside:
            raise StoreError(f"{path} names a file outside the store: {outside[0]!r}.")
        return manifest


def _check_types(part: Any) -> None:
    """Raise a `TypeError` if a field of a dataclass holds another type than it says, or a negative number."""
    for one in fields(part):
        value, expected = getattr(part, one.name), _TYPES.get(str(one.type))
        if expected is not None and (type(value) is not expected or (expected is int and value < 0)):
            raise TypeError(f"{one.name} of {type(part).__name__} is {value!r:.80}, and should be of type {one.type}.")


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
