"""Random numbers as a function of (seed, epoch, sample, purpose).

The number of processes or workers, which of them reads a sample, and a resumed run change no draw.
"""

from __future__ import annotations

import hashlib

import numpy as np

_SEPARATOR = b"\x1f"


def stable_hash(*parts: object) -> int:
    """Return a signed 64-bit hash of `parts`, the same in every process.

    Args:
        parts: bytes, arrays whose values are hashed as they lie in memory, and anything else, which is hashed as text.
    """
    hashed = hashlib.blake2b(digest_size=8)
    for index, part in enumerate(parts):
        hashed.update(_SEPARATOR if index else b"")
        if isinstance(part, bytes):
            hashed.update(part)
        elif isinstance(part, np.ndarray):
            hashed.update(np.ascontiguousarray(part).data)
        else:
            hashed.update(str(part).encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest(), "little", signed=True)


def generator(seed: int, epoch: int, sample: object, purpose: str) -> np.random.Generator:
    """Return the random generator for one purpose and one sample of an epoch."""
    return np.random.Generator(np.random.Philox(key=stable_hash(seed, epoch, sample, purpose) % 2**64))


def permutation(count: int, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """Return the order of an epoch's shards, or of the rows of a block: (count,) int64."""
    return generator(seed, epoch, "", purpose).permutation(count)
