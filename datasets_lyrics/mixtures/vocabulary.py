"""Names of objects in a data set, for questions about what is there and what is not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from .recipe import Negatives


class Vocabulary:
    """Names of objects, with the numbers of images that they, and pairs of them, are in.

    Args:
        pictures: iterable of the names in each image.
    """

    def __init__(self, pictures: Iterable[Iterable[str]]) -> None:
        counts: Counter[str] = Counter()
        self._together: dict[str, Counter[str]] = defaultdict(Counter)
        for names in pictures:
            names = set(names) - {""}
            counts.update(names)
            for name in names:
                self._together[name].update(names - {name})
        self.names = sorted(counts)
        self._counts = counts

    def draw_absent(self, present: set[str], kind: Negatives, random: np.random.Generator) -> str | None:
        """Return a name that is not in an image, or `None` where all are.

        Args:
            present: names in the image.
            kind: see `Share.negatives`.
            random: generator of the draw.
        """
        absent = [name for name in self.names if name not in present]
        if not absent:
            return None
        weights = np.ones(len(absent))
        if kind == "popular":
            weights = np.array([self._counts[name] for name in absent], float)
        elif kind == "adversarial":
            together = sum((self._together[name] for name in sorted(present)), Counter())
            weights = np.array([together[name] for name in absent], float) + 1e-3  # where nothing occurs with it
        return absent[int(random.choice(len(absent), p=weights / weights.sum()))]
