"""What refining a source will take, from its first pictures."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from ..datasets_lyrics.sources import Source
from ..processing_lyrics import LyricsProcessor
from .dataset_writer import plan_store
from .engines.task import RefiningTask
from .storage.rows import Row, build_batch


@dataclass(frozen=True)
class Estimate:
    """What refining a source will take.

    Attributes:
        pictures: how many there are, or `None` where nobody knows before they are read.
        shards: of the store.
        sampled: pictures that were refined to find out.
        failed: of those.
        seconds_per_picture: of one worker.
        bytes_per_picture: in the store.
    """

    pictures: int | None
    shards: int
    sampled: int
    failed: int
    seconds_per_picture: float
    bytes_per_picture: float

    def seconds(self, workers: int = 1) -> float | None:
        """For all pictures, if every worker is as fast as the one that was measured."""
        return None if self.pictures is None else self.pictures * self.seconds_per_picture / workers

    @property
    def bytes(self) -> float | None:
        """Of the whole store."""
        return None if self.pictures is None else self.pictures * self.bytes_per_picture


def estimate(source: Source, processor: LyricsProcessor, batch_size: int = 8, masks: bool = False) -> Estimate:
    """Count the pictures of a source, and refine its first batch to measure what one takes. Nothing is written.

    Raises:
        ValueError: when the processor has no refiner.
    """
    rows = plan_store(source, processor, shard_size=1, masks=masks).rows
    task = RefiningTask(source, processor, Path(), rows, batch_size)
    processor.refiner  # noqa: B018  (loaded before the clock starts)
    start = time.perf_counter()
    window = [task.load(item) for item in itertools.islice(source.items(0), batch_size)]
    seen = task.refine(window)
    seconds = time.perf_counter() - start
    good = [row for row in seen if isinstance(row, Row)]
    size = build_batch(good, rows).nbytes if good else 0
    return Estimate(
        pictures=source.estimate_total(),
        shards=source.shards,
        sampled=len(seen),
        failed=len(seen) - len(good),
        seconds_per_picture=seconds / max(1, len(seen)),
        bytes_per_picture=size / max(1, len(good)),
    )
