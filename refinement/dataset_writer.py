"""refine_dataset: write the store of a data set, however often the run is interrupted; and estimate what that takes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from transformers.utils import logging

from ..datasets_lyrics.hf_datasets import name_of_place
from ..datasets_lyrics.open_data import open_source
from ..datasets_lyrics.sources import Source
from ..processing_lyrics import LyricsProcessor
from ..utils.atomic_files import remove_leftovers
from ..utils.folder_lock import LOCK_NAME, FolderLock
from .engines.local import refine_here, refine_in_processes
from .engines.progress import Monitor
from .engines.ray import refine_on_ray
from .engines.task import RefiningTask
from .storage.errors import StoreError, TooManyFailuresError
from .storage.finalize import INDEX, finish_store, load_facts, write_failures
from .storage.manifest import MANIFEST, SHARDS, Manifest
from .storage.pixels import PixelFormat
from .storage.refiner_identity import RefinerIdentity
from .storage.rows import Row, RowFormat, build_batch
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
    keep_pixels: bool = False,
    max_failure_rate: float = 0.05,
    retry_failures: bool = False,
    **source_options: Any,
) -> RefinementStore:
    """Refine every image of a source once, and write the visual objects into a store.

    The same call resumes an interrupted run: only unfinished shards are made. Images that cannot be refined are listed
    in `failures.jsonl`.

    Args:
        source: `Source`, or anything that `open_source` takes.
        out: path of the store; the folder is created if it is missing.
        processor: processor with a refiner, on the device and in the dtype in which it is to run.
        batch_size: int, number of images that the refiner processes at a time.
        shard_size: int, number of images in a shard, which is what an interruption can cost.
        workers: int, number of refiners that run at the same time; by default one for each device, or one. Several are
            processes of their own: the refiner must be loaded from a checkpoint, not attached, and a script must guard
            its call with `if __name__ == "__main__":`.
        engine: `"local"` for this machine, or `"ray"` for a cluster (or this machine) through Ray Data.
        devices: names of devices for the local workers in turn, such as `["cuda:0", "cuda:1"]`; by default the
            processor's.
        masks: bool, whether to keep the objects' masks too, as run lengths.
        keep_pixels: bool, whether to keep the pixels that the processor's image processor resizes too: training then
            decodes no files. An image of 224 x 224 pixels takes 150 kB.
        max_failure_rate: float, share of failed images above which the run stops.
        retry_failures: bool, whether to refine finished shards with failed images again, for instance after the files
            were repaired, or with more memory.
        source_options: further arguments of `open_source`.

    Returns:
        The store, open for reading.

    Raises:
        StoreError: saying what differs, when `out` is not a store, or the store of another source, refiner or plan.
        FolderLockedError: when another run writes to the same store.
        TooManyFailuresError: when more images failed than `max_failure_rate` allows.
        OSError: naming the file, when the disk is full or cannot be written.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, got {engine!r}.")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    opened = source if isinstance(source, Source) else open_source(source, shard_size=shard_size, **source_options)
    folder = Path(os.path.abspath(out))
    planned = plan_store(opened, processor, shard_size, masks, keep_pixels)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, "refining"):
        manifest = _start_or_resume(folder, planned)
        facts = load_facts(folder, opened.shards)
        if retry_failures:
            facts = [None if one is not None and one.failures else one for one in facts]
        missing = [number for number, one in enumerate(facts) if one is None]
        if manifest.complete and not missing and all((folder / name).is_file() for name in manifest.files):
            return RefinementStore.open(folder)
        if manifest.complete:
            manifest = replace(manifest, shards=(), files={})
            manifest.save(folder)
        task = RefiningTask(opened, processor, folder, manifest.rows, batch_size)
        try:
            with Monitor(facts, opened.total, max_failure_rate) as monitor:
                if missing:
                    _run(task, missing, monitor, engine, workers, devices)
                monitor.check()
        except TooManyFailuresError:
            write_failures(folder, opened.shards)
            raise
        remove_leftovers(folder / SHARDS)  # of workers that died
        finish_store(folder, manifest)
    return RefinementStore.open(folder)


def plan_store(
    source: Source, processor: LyricsProcessor, shard_size: int, masks: bool, keep_pixels: bool = False
) -> Manifest:
    """Return the manifest of a new store.

    Raises:
        ValueError: when the processor has no refiner, or its image processor does not resize to one size.
    """
    config = processor.refiner_config
    if not processor.has_refiner or config is None:
        raise ValueError("This processor has no refiner: load it from a checkpoint that has one, or attach one.")
    pixels = PixelFormat.of(processor.image_processor) if keep_pixels else None
    if keep_pixels and pixels is None:
        raise ValueError(
            "keep_pixels: the processor's image processor, a "
            f"{type(processor.image_processor).__name__}, does not resize every image to one size without a crop."
        )
    identity = RefinerIdentity.of_processor(processor)
    width = config.region_feature_size
    return Manifest(
        refiner=identity,
        rows=RowFormat(identity.fingerprint, config.region_feature_type, width, masks, pixels=pixels),
        source=source.describe(),
        plan={"shards": source.shards, "shard_size": shard_size},
    )


def _start_or_resume(folder: Path, planned: Manifest) -> Manifest:
    """Return the manifest of the store in a folder after comparing it with the plan; write it for a new store."""
    for place in (folder, folder / SHARDS, folder / INDEX):
        remove_leftovers(place)
    if not (folder / MANIFEST).exists():
        if others := sorted(name for name in os.listdir(folder) if not name.startswith(LOCK_NAME)):
            raise StoreError(
                f"{folder} is neither empty nor a store: {folder / MANIFEST} is missing, but there is {others[0]!r}."
            )
        planned.save(folder)
    manifest = Manifest.load(folder)
    manifest.refiner.require(planned.refiner, f"the store {folder}", "the processor")
    if differences := _differences(manifest, planned):
        raise StoreError(
            f"{folder} was begun with something else: {'; '.join(differences)}. Refine into another folder; stores of "
            "one refiner can be merged."
        )
    if manifest.versions != planned.versions:
        changed = {name: values for name, values in planned.versions.items() if manifest.versions.get(name) != values}
        logger.warning(f"{folder} was begun with other versions of libraries; now there are {changed}.")
    (folder / SHARDS).mkdir(exist_ok=True)
    return manifest


def _differences(manifest: Manifest, planned: Manifest) -> list[str]:
    then, now = (
        {**one.source, **one.plan, "masks": one.rows.masks, "pixels": one.rows.pixels and str(one.rows.pixels)}
        for one in (manifest, planned)
    )
    if then.get("kind") == "stream" and "bytes" not in then:  # of a version before 0.2, which kept the whole path
        then |= {"place": name_of_place(str(then.get("place"))), "bytes": now.get("bytes")}
    return [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in {**then, **now}
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
    if engine == "ray":
        return refine_on_ray(task, missing, monitor, workers)
    workers = min(workers or max(1, len(devices)), len(missing))
    if workers == 1:
        task.processor.to(devices[0] if devices else None)
        return refine_here(task, missing, monitor)
    return refine_in_processes(task, missing, monitor, workers, devices)


@dataclass(frozen=True)
class Estimate:
    """Estimate of what refining a source takes.

    Attributes:
        pictures: int, number of images, or `None` if unknown before they are read.
        shards: int, number of shards of the store.
        sampled: int, number of images that were refined to measure.
        failed: int, number of failed images among them.
        seconds_per_picture: float, time of one worker.
        bytes_per_picture: float, size in the store.
    """

    pictures: int | None
    shards: int
    sampled: int
    failed: int
    seconds_per_picture: float
    bytes_per_picture: float

    def seconds(self, workers: int = 1) -> float | None:
        """Return the time for all images, if every worker is as fast as the measured one."""
        return None if self.pictures is None else self.pictures * self.seconds_per_picture / workers

    @property
    def bytes(self) -> float | None:
        """Size of the store."""
        return None if self.pictures is None else self.pictures * self.bytes_per_picture


def estimate(
    source: Source, processor: LyricsProcessor, batch_size: int = 8, masks: bool = False, keep_pixels: bool = False
) -> Estimate:
    """Count the images of a source, and refine its first batch to measure one image. Nothing is written.

    Args:
        source: source of the images.
        processor: processor with a refiner.
        batch_size: int, number of images that the refiner processes at a time.
        masks: bool, whether the store would keep masks.
        keep_pixels: bool, whether the store would keep resized pixels.

    Raises:
        ValueError: as `plan_store` does.
    """
    rows = plan_store(source, processor, 1, masks, keep_pixels).rows
    task = RefiningTask(source, processor, Path(), rows, batch_size)
    processor.refiner  # noqa: B018  (loads the refiner before the clock starts)
    start = time.perf_counter()
    refined = task.refine([task.load(item) for item in itertools.islice(source.items(0), batch_size)])
    seconds = time.perf_counter() - start
    good = [row for row in refined if isinstance(row, Row)]
    size = build_batch(good, rows).nbytes if good else 0
    return Estimate(
        pictures=source.estimate_total(),
        shards=source.shards,
        sampled=len(refined),
        failed=len(refined) - len(good),
        seconds_per_picture=seconds / max(1, len(refined)),
        bytes_per_picture=size / max(1, len(good)),
    )
