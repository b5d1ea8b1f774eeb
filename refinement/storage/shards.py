"""Shards of a store: Arrow IPC files that are written once, atomically, and read by memory mapping."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from ...utils.atomic_files import write_file
from ...utils.optional_imports import import_optional
from .errors import StoreError
from .rows import BatchView, Row, RowFormat, build_batch

T = TypeVar("T")


@dataclass(frozen=True)
class ShardFacts:
    """Facts about a shard, as the manifest holds them.

    Attributes:
        name: str, name of the file in the folder of shards.
        rows: int, number of images.
        bytes: int, size of the file.
        sha256: str, checksum of the file, hexadecimal.
        failures: int, number of images that could not be refined; the receipt lists them.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    failures: int


@dataclass(frozen=True)
class Receipt:
    """Receipt of a finished shard, the file `NAME.json` beside it; a shard without a receipt is unfinished.

    Attributes:
        facts: facts about the shard.
        failures: images that could not be refined, each with `key`, `place` and `reason`.
    """

    facts: ShardFacts
    failures: tuple[dict[str, str], ...]

    def save(self, folder: Path) -> None:
        """Write the receipt beside its shard."""
        with write_file(_receipt_path(folder, self.facts.name), "w", encoding="utf-8") as file:
            json.dump({**asdict(self.facts), "failed": self.failures}, file, indent=1)

    @classmethod
    def load(cls, folder: Path, name: str) -> Self | None:
        """Return the receipt of a shard, or `None` if the shard is unfinished, truncated or missing."""
        try:
            values = json.loads(_receipt_path(folder, name).read_text("utf-8"))
            failures = tuple(values.pop("failed"))
            receipt = cls(ShardFacts(**values), failures)
            return receipt if (folder / name).stat().st_size == receipt.facts.bytes else None
        except (FileNotFoundError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None


def shard_name(index: int) -> str:
    """Return the file name of a shard."""
    return f"{index:08d}.arrow"


def locate_row(ends: Sequence[int], row: int) -> tuple[int, int]:
    """Return the number of the shard that holds a row of the store, and the row's place in that shard.

    Args:
        ends: number of rows up to the end of each shard.
        row: int, number of the row in the store, below the last end.
    """
    number = bisect_right(ends, row)
    return number, row - (ends[number - 1] if number else 0)


def _receipt_path(folder: Path, name: str) -> Path:
    return (folder / name).with_suffix(".json")


class ShardWriter:
    """Writer of a shard's rows, opened by `write_shard`."""

    def __init__(self, name: str, file: _HashingFile, stream: Any, row_format: RowFormat) -> None:
        self.rows = 0
        self._name, self._file, self._stream, self._format = name, file, stream, row_format
        self._waiting: list[Row] = []

    def append(self, row: Row) -> None:
        """Add the row of an image."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == self._format.rows_per_batch:
            self.flush()

    def flush(self) -> None:
        """Write the rows of an incomplete record batch."""
        if self._waiting:
            self._stream.write_batch(build_batch(self._waiting, self._format))
            self._waiting = []

    def receipt(self, failures: Sequence[dict[str, str]]) -> Receipt:
        """Return the receipt of the written shard."""
        sha256 = self._file.digest.hexdigest()
        return Receipt(ShardFacts(self._name, self.rows, self._file.size, sha256, len(failures)), tuple(failures))


@contextmanager
def write_shard(path: Path, row_format: RowFormat) -> Iterator[ShardWriter]:
    """Open a shard for writing; its file appears when the block ends without an error."""
    pa = import_optional("pyarrow")
    with write_file(path) as file:
        hashing: Any = _HashingFile(file)
        with pa.ipc.new_file(hashing, row_format.schema()) as stream:
            writer = ShardWriter(path.name, hashing, stream, row_format)
            yield writer
            writer.flush()


@dataclass(frozen=True)
class ShardFile:
    """Finished shard that is not open.

    Attributes:
        folder: path of the folder of shards.
        facts: facts that opening checks.
        row_format: row format of the store.
    """

    folder: Path
    facts: ShardFacts
    row_format: RowFormat

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.folder / self.facts.name

    def open(self) -> ShardReader:
        """Map the shard into memory.

        Raises:
            StoreError: as `ShardReader` does.
        """
        return ShardReader(self)


class ShardReader:
    """Reader of a shard, mapped into memory; only rows that are read are loaded.

    Attributes:
        path: path of the file.
        batches: record batches, as `BatchView`.

    Raises:
        StoreError: naming the file, when it is missing, truncated, damaged, or from another store.
    """

    def __init__(self, shard: ShardFile) -> None:
        pa = import_optional("pyarrow")
        self.path, facts, row_format = shard.path, shard.facts, shard.row_format
        try:
            if (size := self.path.stat().st_size) != facts.bytes:
                raise StoreError(f"has {size:,} bytes instead of {facts.bytes:,}: it was cut or replaced.")
            with pa.memory_map(os.fspath(self.path)) as file:  # the mapping stays when the file is closed
                reader = pa.ipc.open_file(file)
                batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
            if RowFormat.of_schema(reader.schema) != row_format:
                raise StoreError("belongs to another store: it has other metadata.")
            for batch in batches:
                batch.validate()  # otherwise damaged metadata could make a read pass the end of a buffer
            self.batches = [BatchView(batch, row_format) for batch in batches]
            if len(self) != facts.rows:
                raise StoreError(f"has {len(self)} rows instead of {facts.rows}.")
        except Exception as error:  # damaged metadata raises errors of many types
            raise StoreError(f"{self.path}: {error}") from error
        self._rows_per_batch = row_format.rows_per_batch

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def key(self, index: int) -> str:
        """Return the key of a row, unchecked."""
        return self._read(index, BatchView.key)

    def image_hash(self, index: int) -> bytes:
        """Return the image hash of a row, unchecked."""
        return self._read(index, BatchView.hash)

    def file_sha256(self, index: int) -> bytes | None:
        """Return the SHA-256 of the file of a row, unchecked; `None` without a file."""
        return self._read(index, BatchView.file_sha256)

    def row(self, index: int, masks: bool = False, pixels: bool = False) -> Row:
        """Return a row after checking its checksum, and that of its pixels if they are wanted.

        Raises:
            StoreError: naming the file, when the row is damaged.
        """
        return self._read(index, lambda batch, place: batch.row(place, masks, pixels))

    def _read(self, index: int, read: Callable[[BatchView, int], T]) -> T:
        batch, place = divmod(index, self._rows_per_batch)
        try:
            return read(self.batches[batch], place)
        except (StoreError, ValueError, IndexError) as error:
            raise StoreError(f"{self.path}: row {index} is damaged: {error}") from error

    def check(self) -> None:
        """Compare every row with its checksum.

        Raises:
            StoreError: as `row` does.
        """
        for index in range(len(self)):
            self.row(index, pixels=True)


class _HashingFile:
    """Sequential binary file that counts and hashes the bytes written to it."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True
