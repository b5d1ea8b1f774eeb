"""Counters, gauges and histograms in the text format of Prometheus, changed in the event loop alone."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..assistant import Lyrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]  # suffix of the name, labels, value


class Counter:
    """Number that only grows, one for each combination of labels."""

    kind = "counter"

    def __init__(self) -> None:
        self._values: dict[Labels, float] = defaultdict(float)

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add an amount."""
        self._values[tuple(labels.items())] += amount

    def samples(self) -> Iterator[Sample]:
        """Yield all values."""
        yield from (("", labels, value) for labels, value in self._values.items())


class Readings:
    """Numbers that are read when they are asked for.

    Args:
        kind: `"gauge"` or `"counter"`.
        read: function that returns pairs of labels and value.
    """

    def __init__(self, kind: str, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        self.kind = kind
        self._read = read

    def samples(self) -> Iterator[Sample]:
        """Yield all values."""
        yield from (("", labels, value) for labels, value in self._read())


class Histogram:
    """Durations in seconds by size, one series for each combination of labels."""

    kind = "histogram"

    def __init__(self) -> None:
        self._counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, **labels: str) -> None:
        """Add a duration."""
        key = tuple(labels.items())
        self._counts[key][bisect_left(_SECONDS, seconds)] += 1
        self._sums[key] += seconds

    def samples(self) -> Iterator[Sample]:
        """Yield the numbers of durations up to each bound, their sum and their number."""
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*_SECONDS, math.inf), counts, strict=True):
                total += count
                yield "_bucket", (*labels, ("le", "+Inf" if bound == math.inf else f"{bound:g}")), total
            yield "_sum", labels, self._sums[labels]
            yield "_count", labels, total


class Metrics:
    """Metrics of a server.

    Args:
        assistant: `Lyrics`, whose queue and caches are read.

    Attributes:
        active: number of requests that are served.
        requests, request_seconds: number and duration of requests by endpoint and status.
        first_piece_seconds: time from a request to the first piece of its answer.
        answers: number of answers by the reason for their end.
        prompt_tokens, completion_tokens: numbers of tokens.
    """

    def __init__(self, assistant: Lyrics) -> None:
        self.active = 0
        self.requests = Counter()
        self.request_seconds = Histogram()
        self.first_piece_seconds = Histogram()
        self.answers = Counter()
        self.prompt_tokens = Counter()
        self.completion_tokens = Counter()
        self._families: dict[str, tuple[str, Counter | Readings | Histogram]] = {
            "lyrics_requests_total": ("Requests by endpoint and status.", self.requests),
            "lyrics_request_seconds": ("Time to the end of a request.", self.request_seconds),
            "lyrics_first_piece_seconds": ("Time to the first piece of an answer.", self.first_piece_seconds),
            "lyrics_answers_total": ("Answers by the reason for their end.", self.answers),
            "lyrics_prompt_tokens_total": ("Tokens of prompts, images included.", self.prompt_tokens),
            "lyrics_completion_tokens_total": ("Tokens of answers.", self.completion_tokens),
            "lyrics_requests_active": ("Requests that are served.", _gauge(lambda: self.active)),
            "lyrics_questions_waiting": ("Questions that wait for the model.", _gauge(lambda: assistant.load()[0])),
            "lyrics_questions_running": ("Questions that are answered.", _gauge(lambda: assistant.load()[1])),
            "lyrics_cache_entries": ("Entries of each cache.", _of_caches(assistant, "gauge", "entries")),
            "lyrics_cache_bytes": ("Size of each cache.", _of_caches(assistant, "gauge", "bytes")),
            "lyrics_cache_max_bytes": ("Largest size of each cache.", _of_caches(assistant, "gauge", "max_bytes")),
            "lyrics_cache_hits_total": ("Look-ups that found.", _of_caches(assistant, "counter", "hits")),
            "lyrics_cache_misses_total": ("Look-ups that did not find.", _of_caches(assistant, "counter", "misses")),
            "process_resident_memory_bytes": ("Memory of the process.", Readings("gauge", _resident_memory)),
        }

    def render(self) -> str:
        """Return all metrics as text."""
        lines: list[str] = []
        for name, (description, family) in self._families.items():
            lines += [f"# HELP {name} {description}", f"# TYPE {name} {family.kind}"]
            for suffix, labels, value in family.samples():
                pairs = ",".join(f'{label}="{text}"' for label, text in labels)  # no text holds quotes or line breaks
                lines.append(f"{name}{suffix}{{{pairs}}} {value:.17g}" if pairs else f"{name}{suffix} {value:.17g}")
        return "\n".join([*lines, ""])


def _gauge(read: Callable[[], float]) -> Readings:
    return Readings("gauge", lambda: [((), read())])


def _of_caches(assistant: Lyrics, kind: str, attribute: str) -> Readings:
    def read() -> list[tuple[Labels, float]]:
        stats = assistant.cache_stats()
        return [((("cache", name),), getattr(one, attribute)) for name, one in stats.items()]

    return Readings(kind, read)


def _resident_memory() -> list[tuple[Labels, float]]:
    """Return the resident memory where Linux tells it."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return []
    return [((), int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))]
