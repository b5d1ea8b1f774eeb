"""The end of a store: its indices, its failures in one file, and the manifest that says that it is complete."""

from __future__ import annotations

import json
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ...utils.atomic_files import naming_file, sha256_of, write_file
from .errors import DuplicateKeyError, StoreError
from .index import hash_images, hash_keys, write_index
from .manifest import SHARDS, Manifest
from .shards import Receipt, ShardFacts, ShardFile, shard_name

INDEX = "index"
FAILURES = "failures.jsonl"
KEYS, IMAGES = "keys", "images"  # names of the indices


def finish_store(folder: Path, manifest: Manifest, origins: Sequence[Path] = ()) -> Manifest:
    """Complete a store whose shards are all there.

    Args:
        folder: of the store.
        manifest: with which it was begun.
        origins: what messages call the shards; by default their own paths.

    Raises:
        DuplicateKeyError: naming both places of a key that is there twice.
        StoreError: when shards are missing, or naming one that is damaged.
    """
    count = manifest.plan["shards"]
    facts = [one for one in load_facts(folder, count) if one is not None]
    if len(facts) < count:
        raise StoreError(f"{count - len(facts)} of {count} shards in {folder / SHARDS} are missing.")
    (folder / INDEX).mkdir(exist_ok=True)
    shards = [ShardFile(folder / SHARDS, one, manifest.rows) for one in facts]
    _write_indices(folder / INDEX, shards, origins or [shard.path for shard in shards])
    write_failures(folder, count)
    files = [folder / FAILURES, *sorted((folder / INDEX).glob("*.npy"))]
    checksums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    finished = manifest.finished(tuple(facts), checksums)
    finished.save(folder)
    return finished


def write_failures(folder: Path, count: int) -> None:
    """Write `failures.jsonl`: the pictures of finished shards that could not be refined, in the order of the source."""
    receipts = (Receipt.load(folder / SHARDS, shard_name(index)) for index in range(count))
    with write_file(folder / FAILURES, "w", encoding="utf-8") as file:
        for failure in (failure for receipt in receipts if receipt for failure in receipt.failures):
            file.write(json.dumps(failure, ensure_ascii=False) + "\n")


def load_facts(folder: Path, count: int) -> list[ShardFacts | None]:
    """For each shard of a store its facts, or `None` where it is not finished."""
    receipts = (Receipt.load(folder / SHARDS, shard_name(index)) for index in range(count))
    return [None if receipt is None else receipt.facts for receipt in receipts]


def _write_indices(folder: Path, shards: Sequence[ShardFile], origins: Sequence[Path]) -> None:
    with _collect_hashes(folder, shards) as (keys, images):
        for rows in write_index(folder, KEYS, keys):
            _check_different(shards, origins, rows.tolist())
        for _ in write_index(folder, IMAGES, images):
            pass  # one picture may have several keys


def _check_different(shards: Sequence[ShardFile], origins: Sequence[Path], rows: Sequence[int]) -> None:
    """Rows whose keys share 64 bits of their hash must have different keys."""
    ends = list(accumulate(shard.facts.rows for shard in shards))
    places: dict[str, str] = {}
    for row in rows:
        number = bisect_right(ends, row)
        place = row - (ends[number] - shards[number].facts.rows)
        key, name = shards[number].open().key(place), f"{origins[number]}, row {place}"
        if key in places:
            raise DuplicateKeyError(f"Key {key!r} is there twice: {places[key]}, and {name}.")
        places[key] = name


@contextmanager
def _collect_hashes(folder: Path, shards: Sequence[ShardFile]) -> Iterator[list[Any]]:
    """The hashes of all keys and of all pictures, (rows,) uint64, in files that take no memory and are removed."""
    paths = [folder / f".{name}.tmp-{uuid.uuid4().hex[:12]}" for name in (KEYS, IMAGES)]
    try:
        with naming_file(paths[0]), open(paths[0], "xb") as keys, open(paths[1], "xb") as images:
            for shard in logging.tqdm(shards, desc="Indexing", unit="shard", disable=len(shards) < 2):
                for batch in shard.open().batches():
                    keys.write(hash_keys(batch.key(row) for row in range(len(batch))).tobytes())
                    images.write(hash_images(batch.hashes()).tobytes())
        is_empty = not any(shard.facts.rows for shard in shards)  # which cannot be mapped
        yield [np.zeros(0, np.uint64) if is_empty else np.memmap(path, np.uint64, "r") for path in paths]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
