"""Randomness that depends on nothing but what it is for: (seed, epoch, sample, purpose).

How many processes or workers there are, which of them reads a sample, and whether the run was resumed changes no draw.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stable_hash(*parts: object) -> int:
    """A signed 64-bit number that depends on the text of `parts` alone, also in another process."""
    content = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def generator(seed: int, epoch: int, sample: object, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose and one sample of an epoch."""
    return np.random.Generator(np.random.Philox(key=stable_hash(seed, epoch, sample, purpose) % 2**64))


def permutation(count: int, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """(count,) int64, the order of an epoch's shards, or of the rows of a block."""
    return generator(seed, epoch, "", purpose).permutation(count)
