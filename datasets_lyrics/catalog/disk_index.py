"""An index on disk for joins: the annotations of a data set by key, in a temporary SQLite file.

Millions of annotations are joined with a few megabytes of memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

_ROWS = 10_000  # inserted at a time
_CACHE = -32_000  # of SQLite, in units of 1,024 bytes, negative as SQLite wants them


class DiskIndex:
    """Values by key, as a context manager; a key may have several values, in the order in which they came.

    Keys are compared as text, so that 7 and "7" are one key: data sets write the same id both ways.

    Args:
        entries: iterable of keys and values in JSON types.
        folder: folder of the temporary file; by default that of the system.
    """

    def __init__(self, entries: Iterable[tuple[Any, Any]], folder: str | os.PathLike | None = None) -> None:
        descriptor, self.path = tempfile.mkstemp(prefix="lyrics-join-", suffix=".sqlite", dir=folder)
        os.close(descriptor)
        self._found = bytearray()  # for each entry whether `get` returned it
        self._database = sqlite3.connect(self.path)
        try:
            self._fill(entries)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM entries").fetchone()[0]

    def all(self, key: Any) -> list[Any]:
        """Return the values of a key, in the order in which they came."""
        rows = self._database.execute("SELECT value FROM entries WHERE key = ? ORDER BY number", (_as_text(key),))
        return [json.loads(text) for (text,) in rows]

    def get(self, key: Any) -> Any:
        """Return the first value of a key, or `None` where there is none."""
        row = self._database.execute(
            "SELECT number, value FROM entries WHERE key = ? ORDER BY number LIMIT 1", (_as_text(key),)
        ).fetchone()
        if row is None:
            return None
        self._found[row[0] - 1] = 1
        return json.loads(row[1])

    def count_keys(self) -> int:
        """Return the number of different keys."""
        return self._database.execute("SELECT COUNT(DISTINCT key) FROM entries").fetchone()[0]

    def count_found(self) -> int:
        """Return the number of different keys that `get` found."""
        return sum(self._found)

    def close(self) -> None:
        """Close and remove the file."""
        self._database.close()
        with suppress(FileNotFoundError):
            os.remove(self.path)

    def _fill(self, entries: Iterable[tuple[Any, Any]]) -> None:
        database = self._database
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = {_CACHE}"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, key TEXT, value TEXT)")
        batch: list[tuple[str, str]] = []
        for key, value in entries:
            batch.append((_as_text(key), json.dumps(value, ensure_ascii=True)))
            if len(batch) == _ROWS:
                self._insert(batch)
                batch = []
        self._insert(batch)
        database.execute("CREATE INDEX by_key ON entries (key)")
        database.commit()
        self._found = bytearray(len(self))

    def _insert(self, batch: list[tuple[str, str]]) -> None:
        self._database.executemany("INSERT INTO entries (key, value) VALUES (?, ?)", batch)


def _as_text(key: Any) -> str:
    """Return a key as text that a database can hold: half a surrogate pair becomes its escape."""
    text = str(key)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
