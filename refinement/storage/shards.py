"""A shard: one Arrow IPC file that is written once, whole, and read by memory mapping."""

from __future__ import annotations

import hashlib
import json
import os
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
    """What a manifest says about a shard.

    Attributes:
        name: of the file, in the folder of shards.
        rows: pictures in it.
        bytes: size of the file.
        sha256: of the file.
        failures: how many pictures should be in it and are not; its receipt says which.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    failures: int


@dataclass(frozen=True)
class Receipt:
    """What stands beside a finished shard, as `NAME.json`: a shard without one is not finished.

    Attributes:
        facts: about the shard.
        failures: pictures that could not be refined, each `key`, `place` and `reason`.
    """

    facts: ShardFacts
    failures: tuple[dict[str, str], ...]

    def save(self, folder: Path) -> None:
        """Write it beside its shard."""
        with write_file(_receipt_path(folder, self.facts.name), "w", encoding="utf-8") as file:
            json.dump({**asdict(self.facts), "failed": self.failures}, file, indent=1)

    @classmethod
    def load(cls, folder: Path, name: str) -> Self | None:
        """The receipt of a shard, or `None` where the shard is not finished, was cut, or is missing."""
        try:
            values = json.loads(_receipt_path(folder, name).read_text("utf-8"))
            failures = tuple(values.pop("failed"))
            receipt = cls(ShardFacts(**values), failures)
            return receipt if (folder / name).stat().st_size == receipt.facts.bytes else None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None


def shard_name(index: int) -> str:
    """The name of a shard's file."""
    return f"{index:08d}.arrow"


def _receipt_path(folder: Path, name: str) -> Path:
    return (folder / name).with_suffix(".json")


class ShardWriter:
    """What `write_shard` gives: takes rows."""

    def __init__(self, name: str, file: _HashingFile, stream: Any, row_format: RowFormat) -> None:
        self.rows = 0
        self._name, self._file, self._stream, self._format = name, file, stream, row_format
        self._waiting: list[Row] = []

    def append(self, row: Row) -> None:
        """Add a picture."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == self._format.rows_per_batch:
            self.flush()

    def flush(self) -> None:
        """Write what waits for its record batch to be full."""
        if self._waiting:
            self._stream.write_batch(build_batch(self._waiting, self._format))
            self._waiting = []

    def receipt(self, failures: Sequence[dict[str, str]]) -> Receipt:
        """What there is to know about the shard, once it is written."""
        sha256 = self._file.digest.hexdigest()
        return Receipt(ShardFacts(self._name, self.rows, self._file.size, sha256, len(failures)), tuple(failures))


@contextmanager
def write_shard(path: Path, row_format: RowFormat) -> Iterator[ShardWriter]:
    """Write a shard: the file appears when the block ends, unless the block raises."""
    pa = import_optional("pyarrow")
    with write_file(path) as file:
        hashing: Any = _HashingFile(file)
        with pa.ipc.new_file(hashing, row_format.schema()) as stream:
            writer = ShardWriter(path.name, hashing, stream, row_format)
            yield writer
            writer.flush()


@dataclass(frozen=True)
class ShardFile:
    """A finished shard that is not open.

    Attributes:
        folder: of the shards.
        facts: what must be true of it.
        row_format: of the store.
    """

    folder: Path
    facts: ShardFacts
    row_format: RowFormat

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.folder / self.facts.name

    def open(self) -> ShardReader:
        """Map it into memory; see `ShardReader`."""
        return ShardReader(self)


class ShardReader:
    """The rows of a shard, mapped into memory; what is not read is not loaded.

    Raises:
        StoreError: naming the file, when it is missing, cut, damaged, or from another store.
    """

    def __init__(self, shard: ShardFile) -> None:
        pa = import_optional("pyarrow")
        self.path, facts, row_format = shard.path, shard.facts, shard.row_format
        try:
            if (size := self.path.stat().st_size) != facts.bytes:
                raise StoreError(f"has {size:,} bytes instead of {facts.bytes:,}: it was cut or replaced.")
            with pa.memory_map(os.fspath(self.path)) as file:  # the mapping outlives the file
                reader = pa.ipc.open_file(file)
                batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
            if RowFormat.of_schema(reader.schema) != row_format:
                raise StoreError("belongs to another store: it has other metadata.")
            for batch in batches:
                batch.validate()  # or damaged metadata would have buffers read beyond their end
            self._batches = [BatchView(batch, row_format) for batch in batches]
            if len(self) != facts.rows:
                raise StoreError(f"has {len(self)} rows instead of {facts.rows}.")
        except Exception as error:  # damaged metadata is noticed in many ways
            raise StoreError(f"{self.path}: {error}") from error
        self._rows_per_batch = row_format.rows_per_batch

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def key(self, index: int) -> str:
        """The key of a row."""
        return self._read(index, BatchView.key)

    def image_hash(self, index: int) -> bytes:
        """The image hash of a row."""
        return self._read(index, BatchView.hash)

    def row(self, index: int, masks: bool = False) -> Row:
        """Read a row, once its checksum was found right.

        Raises:
            StoreError: naming the file, when the row is damaged.
        """
        return self._read(index, lambda batch, place: batch.row(place, masks))

    def _read(self, index: int, read: Callable[[BatchView, int], T]) -> T:
        batch, place = divmod(index, self._rows_per_batch)
        try:
            return read(self._batches[batch], place)
        except (StoreError, ValueError, IndexError) as error:
            raise StoreError(f"{self.path}: row {index} is damaged: {error}") from error

    def check(self) -> None:
        """Compare every row with its checksum.

        Raises:
            StoreError: as `row` does.
        """
        for index in range(len(self)):
            self.row(index)

    def batches(self) -> Iterator[BatchView]:
        """All record batches."""
        return iter(self._batches)


class _HashingFile:
    """A file that is written once from start to end, and counts and hashes what goes into it."""

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
