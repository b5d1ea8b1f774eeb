"""refine_dataset: from a source to a complete store, however often it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from transformers.utils import logging

from ..datasets_lyrics.open_data import open_source
from ..datasets_lyrics.sources import Source
from ..processing_lyrics import LyricsProcessor
from ..utils.atomic_files import remove_leftovers
from ..utils.folder_lock import LOCK_NAME, FolderLock
from .engines.local import refine_here, refine_in_processes
from .engines.progress import Monitor
from .engines.task import RefiningTask
from .storage.errors import StoreError, TooManyFailuresError
from .storage.finalize import INDEX, finish_store, load_facts, write_failures
from .storage.manifest import MANIFEST, SHARDS, Manifest
from .storage.refiner_identity import RefinerIdentity
from .storage.rows import RowFormat
from .store import RefinementStore

logger = logging.get_logger(__name__)

Engine = Literal["local", "ray"]


def refine_dataset(
    source: Any,
    out: str | os.PathLike,
    processor: LyricsProcessor,
    batch_size: int = 8,
    shard_size: int = 1000,
    workers: int | None = None,
    engine: Engine = "local",
    devices: Sequence[str] = (),
    masks: bool = False,
    max_failure_rate: float = 0.05,
    **source_options: Any,
) -> RefinementStore:
    """Refine every picture of a source once, and keep what was seen in a store.

    An interrupted run is resumed by the same call: only shards that are not finished are made. Pictures that cannot be
    refined go to `failures.jsonl`.

    Args:
        source: a `Source`, or anything that `open_source` takes.
        out: folder of the store; made where it is missing.
        processor: with a refiner, on the device and in the dtype that it is to run in.
        batch_size: pictures that the refiner sees at a time.
        shard_size: pictures in a shard; what an interruption can cost.
        workers: refiners that run at the same time; by default one for each device, or one. More than one are
            processes of their own: the refiner must have been loaded from a checkpoint, not attached, and a script
            must begin its work under `if __name__ == "__main__":`.
        engine: `"local"` for this machine, `"ray"` for a cluster (or this machine) through Ray Data.
        devices: of the local workers in turn, such as `["cuda:0", "cuda:1"]`; by default the processor's.
        masks: keep the objects' masks too, as run lengths.
        max_failure_rate: stop when more than this part of the pictures has failed.
        source_options: further arguments of `open_source`.

    Raises:
        StoreError: when `out` is something else, or a store of another source, refiner or plan, with what differs.
        FolderLockedError: when another run fills the same store.
        TooManyFailuresError: when more pictures failed than were allowed to.
        OSError: naming the file, when the disk is full or cannot be written.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, got {engine!r}.")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    opened = source if isinstance(source, Source) else open_source(source, shard_size=shard_size, **source_options)
    folder = Path(os.path.abspath(out))
    wanted = plan_store(opened, processor, shard_size, masks)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, "refining"):
        manifest = _begin(folder, wanted)
        facts = load_facts(folder, opened.shards)
        missing = [number for number, one in enumerate(facts) if one is None]
        whole = manifest.complete and not missing and all((folder / name).is_file() for name in manifest.files)
        if not whole:
            if manifest.complete:
                manifest = replace(manifest, shards=(), files={})
                manifest.save(folder)
            task = RefiningTask(opened, processor, folder, manifest.rows, batch_size)
            try:
                with Monitor(facts, opened.shards, opened.total, max_failure_rate) as monitor:
                    _run(task, missing, monitor, engine, workers, devices)
                    monitor.check()
            except TooManyFailuresError:
                write_failures(folder, opened.shards)
                raise
            remove_leftovers(folder / SHARDS)  # of workers that died
            finish_store(folder, manifest)
    return RefinementStore.open(folder)


def plan_store(source: Source, processor: LyricsProcessor, shard_size: int, masks: bool) -> Manifest:
    """The manifest of a store that is not begun yet.

    Raises:
        ValueError: when the processor has no refiner.
    """
    config = processor.refiner_config
    if not processor.has_refiner or config is None:
        raise ValueError("This processor has no refiner: load it from a checkpoint that has one, or attach one.")
    identity = RefinerIdentity.of_processor(processor)
    return Manifest(
        refiner=identity,
        rows=RowFormat(identity.fingerprint, config.region_feature_type, config.region_feature_size, masks),
        source=source.describe(),
        plan={"shards": source.shards, "shard_size": shard_size},
    )


def _begin(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest of a store that was begun before, if it is the same one; or else a new one, written."""
    for place in (folder, folder / SHARDS, folder / INDEX):
        remove_leftovers(place)
    if not (folder / MANIFEST).exists():
        if others := sorted(set(os.listdir(folder)) - {LOCK_NAME}):
            raise StoreError(
                f"{folder} is neither empty nor a store: {folder / MANIFEST} is missing, but there is {others[0]!r}."
            )
        wanted.save(folder)
    manifest = Manifest.load(folder)
    manifest.refiner.require(wanted.refiner, f"the store {folder}", "the processor")
    differences = _differences(manifest, wanted)
    if differences:
        raise StoreError(
            f"{folder} was begun with something else: {'; '.join(differences)}. Refine into another folder; stores of "
            "one refiner can be merged."
        )
    if manifest.versions != wanted.versions:
        changed = {name: values for name, values in wanted.versions.items() if manifest.versions.get(name) != values}
        logger.warning(f"{folder} was begun with other versions of libraries; now there are {changed}.")
    (folder / SHARDS).mkdir(exist_ok=True)
    return manifest


def _differences(manifest: Manifest, wanted: Manifest) -> list[str]:
    pairs = [
        (manifest.source, wanted.source),
        (manifest.plan, wanted.plan),
        ({"masks": manifest.rows.masks}, {"masks": wanted.rows.masks}),
    ]
    return [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for then, now in pairs
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _run(
    task: RefiningTask,
    missing: Sequence[int],
    monitor: Monitor,
    engine: Engine,
    workers: int | None,
    devices: Sequence[str],
) -> None:
    if not missing:
        return
    if engine == "ray":
        from .engines.ray import refine_on_ray

        return refine_on_ray(task, missing, monitor, workers)
    workers = min(workers or max(1, len(devices)), len(missing))
    if workers == 1:
        task.processor.to(devices[0] if devices else None)
        return refine_here(task, missing, monitor)
    return refine_in_processes(task, missing, monitor, workers, devices)
