"""Permutations of any length as functions: no list is stored, and any position is computed at once."""

from __future__ import annotations

import hashlib

_ROUNDS = 4


class Shuffle:
    """A pseudo-random permutation of `range(count)` as a function of a key: a Feistel network with cycle walking.

    Args:
        count: int, at least 1.
        key: parts that are hashed, such as seed and epoch.
    """

    def __init__(self, count: int, *key: object) -> None:
        self.count = count
        self._half = max(1, ((count - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        text = "\x1f".join(map(str, key)).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=8 * _ROUNDS).digest()
        self._keys = [int.from_bytes(digest[8 * place : 8 * place + 8], "little") for place in range(_ROUNDS)]

    def __call__(self, place: int) -> int:
        """Return the number at a place.

        Raises:
            IndexError: when the place is outside of the range.
        """
        if not 0 <= place < self.count:
            raise IndexError(f"Place {place} of {self.count}.")
        while True:  # the network permutes at most four times as many numbers
            place = self._permute(place)
            if place < self.count:
                return place

    def _permute(self, number: int) -> int:
        left, right = number >> self._half, number & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return left << self._half | right


def _mix(number: int) -> int:
    """Return 64 well mixed bits (the finalizer of SplitMix64)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


def split_evenly(total: int, weights: list[float]) -> list[int]:
    """Return whole numbers that add up to `total`, as near as possible to the weights' proportions."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(one) for one in exact]
    order = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in order[: total - sum(counts)]:
        counts[place] += 1
    return counts
