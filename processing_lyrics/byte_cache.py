"""A cache bounded in bytes, which several threads share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class CacheStats:
    """Numbers of a cache.

    Attributes:
        entries: number of values.
        bytes: size of all values.
        max_bytes: largest size.
        hits: number of look-ups that found a value.
        misses: number of look-ups that found none.
    """

    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int


class ByteCache(Generic[Key, Value]):
    """Mapping that drops what was not used for longest, as soon as its values take more than `max_bytes`.

    Copies and pickles of it are empty.

    Args:
        max_bytes: largest size of all values together; a larger value is not kept, and 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"A cache cannot have {max_bytes} bytes.")
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_bytes,)

    def get(self, key: Key, is_counted: bool = True) -> Value | None:
        """Return a value, which thereby becomes the last to be dropped, or `None`.

        Args:
            key: key.
            is_counted: whether the look-up counts in `stats`.
        """
        with self._lock:
            found = self._values.get(key)
            self._hits += is_counted and found is not None
            self._misses += is_counted and found is None
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, num_bytes: int) -> None:
        """Keep a value of a size in bytes, in place of another of the same key."""
        with self._lock:
            self._drop(key)
            if num_bytes > self.max_bytes:
                return
            self._values[key] = value, num_bytes
            self._bytes += num_bytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]

    def remove(self, key: Key) -> None:
        """Forget a value, if it is there."""
        with self._lock:
            self._drop(key)

    def items(self) -> list[tuple[Key, Value]]:
        """Return all keys and values, the last used first; this counts as no use."""
        with self._lock:
            return [(key, value) for key, (value, _) in reversed(self._values.items())]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def stats(self) -> CacheStats:
        """Return numbers of entries, bytes and look-ups."""
        with self._lock:
            return CacheStats(len(self._values), self._bytes, self.max_bytes, self._hits, self._misses)

    def _drop(self, key: Key) -> None:
        if (old := self._values.pop(key, None)) is not None:
            self._bytes -= old[1]
