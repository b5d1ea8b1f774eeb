"""The manifest of a store: what is in it, where it comes from, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
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
LIBRARIES = ("ziya-lyrics", "torch", "transformers", "pillow", "numpy", "pyarrow")


@dataclass(frozen=True)
class Manifest:
    """What is known about a store.

    Attributes:
        refiner: which refiner saw the pictures.
        rows: what all rows have in common.
        source: where the pictures come from, as the source describes itself.
        plan: how the work is split: `shards`, `shard_size`, `limit`.
        versions: of the libraries that the store was begun with.
        shards: the finished ones, once all are.
        files: checksums (SHA-256) of the other files, by path.
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
        """Whether every shard is there."""
        return bool(self.files)

    @property
    def row_count(self) -> int:
        """Pictures in the store."""
        return sum(shard.rows for shard in self.shards)

    @property
    def failure_count(self) -> int:
        """Pictures that could not be refined."""
        return sum(shard.failures for shard in self.shards)

    def shard_files(self, folder: Path) -> list[ShardFile]:
        """The finished shards of the store in this folder."""
        return [ShardFile(folder / SHARDS, facts, self.rows) for facts in self.shards]

    def finished(self, shards: tuple[ShardFacts, ...], files: Mapping[str, str]) -> Manifest:
        """With its shards, and the checksums of the other files."""
        return replace(self, shards=shards, files=dict(files))

    def save(self, folder: Path) -> None:
        """Write the manifest of a store."""
        values = {"format": FORMAT, "version": VERSION, "complete": self.complete, **asdict(self)}
        with write_file(folder / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(values | {"checksum": _checksum(values)}, file, indent=1, sort_keys=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the manifest of a store.

        Raises:
            StoreError: naming the file, when it is missing, damaged, or of a version that is not known.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: {folder} is not a store.") from None
        except ValueError as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StoreError(f"{path} is not the manifest of a store.")
        if values.pop("checksum", None) != _checksum(values):
            raise StoreError(f"{path} is damaged: its checksum is wrong.")
        if values["version"] != VERSION:
            raise StoreError(f"{path} has version {values['version']}; this package reads version {VERSION}.")
        return cls(
            refiner=RefinerIdentity.from_dict(values["refiner"]),
            rows=RowFormat(**values["rows"]),
            shards=tuple(ShardFacts(**shard) for shard in values["shards"]),
            **{name: values[name] for name in ("source", "plan", "versions", "files")},
        )


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
