"""Completion of a store: its indices, its list of failures, and the manifest that declares it complete."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ...utils.atomic_files import naming_disk_errors, sha256_of, write_file
from .errors import DuplicateKeyError, StoreError
from .index import hash_images, hash_keys, write_index
from .manifest import SHARDS, Manifest
from .rows import BatchView
from .shards import Receipt, ShardFacts, ShardFile, locate_row, shard_name

INDEX = "index"
FAILURES = "failures.jsonl"
KEYS, IMAGES = "keys", "images"  # names of the indices
FILES = "files"  # of stores with pixels, which are found without decoding a file


def finish_store(folder: Path, manifest: Manifest, origins: Sequence[Path] = ()) -> Manifest:
    """Complete a store whose shards are all finished.

    Args:
        folder: path of the store.
        manifest: manifest with which the store was started.
        origins: paths that messages name instead of the shards' own, one for each shard.

    Raises:
        DuplicateKeyError: naming both places of a key that occurs twice.
        StoreError: when shards are missing, or naming one that is damaged.
    """
    count = manifest.plan["shards"]
    facts = tuple(one for one in load_facts(folder, count) if one is not None)
    if len(facts) < count:
        raise StoreError(f"{count - len(facts)} of {count} shards in {folder / SHARDS} are missing.")
    (folder / INDEX).mkdir(exist_ok=True)
    shards = [ShardFile(folder / SHARDS, one, manifest.rows) for one in facts]
    _write_indices(folder / INDEX, shards, origins or [shard.path for shard in shards])
    write_failures(folder, count)
    files = [folder / FAILURES, *sorted((folder / INDEX).glob("*.npy"))]
    checksums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    finished = replace(manifest, shards=facts, files=checksums)
    finished.save(folder)
    return finished


def write_failures(folder: Path, count: int) -> None:
    """Write `failures.jsonl`: the failed images of finished shards, in the order of the source."""
    with write_file(folder / FAILURES, "w", encoding="utf-8") as file:
        for failure in (failure for receipt in _receipts(folder, count) if receipt for failure in receipt.failures):
            file.write(json.dumps(failure, ensure_ascii=False) + "\n")


def load_facts(folder: Path, count: int) -> list[ShardFacts | None]:
    """Return the facts about each of `count` shards, `None` for an unfinished one."""
    return [None if receipt is None else receipt.facts for receipt in _receipts(folder, count)]


def _receipts(folder: Path, count: int) -> Iterator[Receipt | None]:
    return (Receipt.load(folder / SHARDS, shard_name(index)) for index in range(count))


def _write_indices(folder: Path, shards: Sequence[ShardFile], origins: Sequence[Path]) -> None:
    with _collect_hashes(folder, shards) as hashes:
        for name, values in hashes.items():
            for rows in write_index(folder, name, values):
                if name == KEYS:  # one image or file may have several keys
                    _check_different(shards, origins, rows.tolist())


def _check_different(shards: Sequence[ShardFile], origins: Sequence[Path], rows: Sequence[int]) -> None:
    """Raise an error if rows whose keys share 64 bits of their hash share a key."""
    ends = list(accumulate(shard.facts.rows for shard in shards))
    places: dict[str, str] = {}
    for row in rows:
        number, place = locate_row(ends, row)
        key, name = shards[number].open().key(place), f"{origins[number]}, row {place}"
        if key in places:
            raise DuplicateKeyError(f"Key {key!r} is there twice: {places[key]}, and {name}.")
        places[key] = name


@contextmanager
def _collect_hashes(folder: Path, shards: Sequence[ShardFile]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the hashes of each index by its name, (rows,) uint64 each, mapped from temporary files."""
    collected = {
        name: read for name, read in _HASHES.items() if name != FILES or any(one.row_format.pixels for one in shards)
    }
    paths = {name: folder / f".{name}.tmp-{uuid.uuid4().hex[:12]}" for name in collected}
    try:
        with naming_disk_errors(paths[KEYS]), ExitStack() as opened:
            files = {name: opened.enter_context(open(path, "xb")) for name, path in paths.items()}
            for shard in logging.tqdm(shards, desc="Indexing", unit="shard", disable=len(shards) < 2):
                for batch in shard.open().batches:
                    for name, read in collected.items():
                        files[name].write(read(batch).tobytes())
        is_empty = not any(shard.facts.rows for shard in shards)  # an empty file cannot be mapped
        yield {
            name: np.zeros(0, np.uint64) if is_empty else np.memmap(path, np.uint64, "r")
            for name, path in paths.items()
        }
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


_HASHES: dict[str, Callable[[BatchView], np.ndarray]] = {
    KEYS: lambda batch: hash_keys(batch.key(row) for row in range(len(batch))),
    IMAGES: lambda batch: hash_images(batch.hashes),
    FILES: lambda batch: hash_images(batch.files),
}
