"""Stores made of stores: several in one, or the same as Parquet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

from ..utils.atomic_files import write_file, write_folder
from ..utils.optional_imports import import_optional
from .storage.errors import StoreError
from .storage.finalize import finish_store
from .storage.manifest import SHARDS, Manifest
from .storage.shards import Receipt, shard_name

if TYPE_CHECKING:
    from .store import RefinementStore


def merge(stores: Sequence[RefinementStore], out: Path) -> Manifest:
    """See `RefinementStore.merge`."""
    if not stores:
        raise ValueError("There is no store to merge.")
    first = stores[0].manifest
    for store in stores[1:]:
        store.manifest.refiner.require(first.refiner, f"the store {store.path}", f"the store {stores[0].path}")
        if store.manifest.rows != first.rows:
            raise StoreError(f"{store.path} has {store.manifest.rows}, but {stores[0].path} has {first.rows}.")
    shards = [shard for store in stores for shard in store.shards]
    source = {"kind": "merged", "sources": [store.manifest.source for store in stores]}
    plan = {"shards": len(shards), "shard_size": None}
    with write_folder(out) as folder:
        (folder / SHARDS).mkdir()
        for number, shard in enumerate(logging.tqdm(shards, desc="Merging", unit="shard")):
            if (receipt := Receipt.load(shard.folder, shard.facts.name)) is None:
                raise StoreError(f"{shard.path}, or the receipt beside it, is missing or cut.")
            _link_or_copy(shard.path, folder / SHARDS / shard_name(number))
            Receipt(replace(shard.facts, name=shard_name(number)), receipt.failures).save(folder / SHARDS)
        manifest = replace(first, source=source, plan=plan, shards=(), files={})
        return finish_store(folder, manifest, origins=[shard.path for shard in shards])


def export_parquet(store: RefinementStore, out: Path) -> None:
    """See `RefinementStore.export`."""
    pa, pq = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    with write_folder(out) as folder:
        for shard in logging.tqdm(store.shards, desc="Exporting", unit="shard"):
            shard.open().check()
            with pa.memory_map(os.fspath(shard.path)) as file:
                table = pa.ipc.open_file(file).read_all()
            with write_file((folder / shard.facts.name).with_suffix(".parquet")) as target:
                pq.write_table(
                    table.drop_columns(["checksum"]), target, row_group_size=store.manifest.rows.rows_per_batch
                )


def _link_or_copy(source: Path, target: Path) -> None:
    """Shards never change, so that two stores may share one on the same disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
