"""What the engines report to: progress, remaining time, and whether too many pictures fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from transformers.utils import logging

from ..storage.errors import TooManyFailuresError
from ..storage.shards import ShardFacts

FEWEST = 100  # pictures after which a rate of failures means something


class Monitor:
    """Counts pictures, as a context manager around a progress bar.

    Args:
        before: of every shard its facts, or `None` where it is not finished.
        shards: how many there will be.
        total: how many pictures, where that is known.
        max_failure_rate: of the pictures so far; more stop the run.
    """

    def __init__(
        self, before: Sequence[ShardFacts | None], shards: int, total: int | None, max_failure_rate: float
    ) -> None:
        finished = [facts for facts in before if facts is not None]
        self.done = sum(facts.rows + facts.failures for facts in finished)
        self.failed = sum(facts.failures for facts in finished)
        self._running: dict[int, Counter[str]] = {}
        self._finished, self._shards, self._total, self._rate = len(finished), shards, total, max_failure_rate
        self._example = ""

    def __enter__(self) -> Self:
        self._bar: Any = logging.tqdm(
            total=self._total, initial=self.done, desc="Refining", unit="image", smoothing=0.05, mininterval=0.5
        )
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def progress(self, shard: int, done: int, failures: Sequence[dict[str, str]]) -> None:
        """Pictures of an unfinished shard are done, and some of them failed.

        Raises:
            TooManyFailuresError: with an example.
        """
        self._running.setdefault(shard, Counter()).update(done=done, failed=len(failures))
        self._count(done, len(failures))
        for failure in failures[-1:]:
            self._example = f" The last one: {failure['key']}: {failure['reason']}"
        self._check_early()

    def lost(self, shard: int) -> None:
        """An unfinished shard was lost; its pictures are done again."""
        counts = self._running.pop(shard, Counter())
        self._count(-counts["done"], -counts["failed"])

    def finished(self, shard: int, facts: ShardFacts) -> None:
        """A shard is finished. Where the number of pictures is not known, it is guessed from the shards so far.

        Raises:
            TooManyFailuresError: as `progress` does.
        """
        counts = self._running.pop(shard, Counter())
        self._count(facts.rows + facts.failures - counts["done"], facts.failures - counts["failed"])
        self._finished += 1
        if self._total is None:
            self._bar.total = round(self.done / self._finished * self._shards)
        self._show()
        self._check_early()

    def _check_early(self) -> None:
        if self.done >= FEWEST:
            self.check()

    def check(self) -> None:
        """Raise a `TooManyFailuresError` when too many pictures have failed."""
        if self.failed > self._rate * self.done:
            raise TooManyFailuresError(
                f"{self.failed:,} of {self.done:,} pictures failed, which is more than the {self._rate:.2%} that were "
                f"allowed. Finished shards are kept; a higher rate goes on with them.{self._example}"
            )

    def _count(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed
        self._bar.update(done)
        self._show()

    def _show(self) -> None:
        self._bar.set_postfix_str(f"shards {self._finished}/{self._shards}, failures {self.failed}", refresh=False)
