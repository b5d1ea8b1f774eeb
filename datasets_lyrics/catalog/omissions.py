"""What a reader leaves out: counted by kind, with a few examples that name file and record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

EXAMPLES = 3  # of each kind that a summary shows


class OmittedError(ValueError):
    """A record cannot be used.

    Attributes:
        kind: str, kind of fault, a few words that are the same for all records with it.
        detail: str, what is wrong with this record.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail

    @classmethod
    def of_unknown_split(cls, split: Any, known: Iterable[Any]) -> Self:
        """Return the fault of a record whose split is none of the data set's."""
        return cls("unknown split", f"its split is {split!r:.40}; known are {', '.join(map(repr, known))}")


@dataclass
class Omissions:
    """Records that were left out.

    Attributes:
        counts: number of records by kind of fault.
        examples: the first few of each kind, each with file, record and detail.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def total(self) -> int:
        """Number of records that were left out."""
        return self.counts.total()

    def add(self, place: str, error: OmittedError, count: int = 1) -> None:
        """Count a fault at a place."""
        self.counts[error.kind] += count
        if len(self.examples[error.kind]) < EXAMPLES:
            self.examples[error.kind].append(f"{place}: {error.detail}")

    def describe(self) -> str:
        """Return the counts and examples as one sentence for each kind; an empty string without omissions."""
        return " ".join(
            f"{kind}: {count:,} ({'; '.join(self.examples[kind])})." for kind, count in self.counts.most_common()
        )
