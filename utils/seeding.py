"""Random numbers as a function of (seed, epoch, sample, purpose).

The number of processes or workers, which of them reads a sample, and a resumed run change no draw.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stable_hash(*parts: object) -> int:
    """Return a signed 64-bit hash of the text of `parts`, the same in every process."""
    content = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def generator(seed: int, epoch: int, sample: object, purpose: str) -> np.random.Generator:
    """Return the random generator for one purpose and one sample of an epoch."""
    return np.random.Generator(np.random.Philox(key=stable_hash(seed, epoch, sample, purpose) % 2**64))


def permutation(count: int, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """Return the order of an epoch's shards, or of the rows of a block: (count,) int64."""
    return generator(seed, epoch, "", purpose).permutation(count)
