"""Progress of a run: counts, remaining time, and the limit of failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from transformers.utils import logging

from ..storage.errors import TooManyFailuresError
from ..storage.shards import ShardFacts

MIN_IMAGES = 100  # before a rate of failures stops the run


class Monitor:
    """Counter of images with a progress bar, as a context manager.

    Args:
        before: facts about each shard, `None` for an unfinished one.
        total: int, number of images, or `None` if unknown.
        max_failure_rate: float, share of failed images above which the run stops.
    """

    def __init__(self, before: Sequence[ShardFacts | None], total: int | None, max_failure_rate: float) -> None:
        finished = [facts for facts in before if facts is not None]
        self.done = sum(facts.rows + facts.failures for facts in finished)
        self.failed = sum(facts.failures for facts in finished)
        self._running: dict[int, Counter[str]] = {}
        self._finished, self._shards, self._total, self._rate = len(finished), len(before), total, max_failure_rate
        self._example = ""

    def __enter__(self) -> Self:
        self._bar: Any = logging.tqdm(
            total=self._total, initial=self.done, desc="Refining", unit="image", smoothing=0.05, mininterval=0.5
        )
        self._count(0, 0)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def progress(self, shard: int, done: int, failures: Sequence[dict[str, str]]) -> None:
        """Count processed images of an unfinished shard.

        Args:
            shard: int, number of the shard.
            done: int, number of processed images.
            failures: failed images among them, each with `key` and `reason`.

        Raises:
            TooManyFailuresError: with an example, when too many images failed.
        """
        self._running.setdefault(shard, Counter()).update(done=done, failed=len(failures))
        for failure in failures[-1:]:
            self._example = f" The last one: {failure['key']}: {failure['reason']}"
        self._count(done, len(failures))
        self._check_early()

    def lost(self, shard: int) -> None:
        """Discount an unfinished shard whose worker died; its images are processed again."""
        counts = self._running.pop(shard, Counter())
        self._count(-counts["done"], -counts["failed"])

    def finished(self, shard: int, facts: ShardFacts) -> None:
        """Count a finished shard. An unknown total is estimated from the shards so far.

        Raises:
            TooManyFailuresError: as `progress` does.
        """
        counts = self._running.pop(shard, Counter())
        self._finished += 1
        self._count(facts.rows + facts.failures - counts["done"], facts.failures - counts["failed"])
        if self._total is None:
            self._bar.total = round(self.done / self._finished * self._shards)
        self._check_early()

    def check(self) -> None:
        """Raise a `TooManyFailuresError` if too many images failed."""
        if self.failed > self._rate * self.done:
            raise TooManyFailuresError(
                f"{self.failed:,} of {self.done:,} images failed, which is more than the {self._rate:.2%} that were "
                f"allowed. Finished shards are kept; a higher rate goes on with them.{self._example}"
            )

    def _check_early(self) -> None:
        if self.done >= MIN_IMAGES:
            self.check()

    def _count(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed
        self._bar.update(done)
        self._bar.set_postfix_str(f"shards {self._finished}/{self._shards}, failures {self.failed}", refresh=False)
