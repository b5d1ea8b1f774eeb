"""Index of a store: finds the row of a key or of an image hash in constant time, with next to no memory.

An index consists of three arrays in numpy's file format, mapped into memory: the first 8 bytes of every hash, sorted;
the row of each hash; and the start of each prefix. A search reads a few neighboring hashes; the caller then compares
the full keys or hashes of the rows that it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ...utils.atomic_files import write_file
from .errors import StoreError

ROWS_IN_MEMORY = 1 << 24  # sorted at a time: 400 MB
PER_PREFIX = 8  # rows, on average
_U64 = np.dtype("<u8")


def hash_key(key: str) -> int:
    """Return the 64 bits that an index holds of a key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def hash_keys(keys: Iterable[str]) -> np.ndarray:
    """Return `hash_key` of many keys, uint64 array of shape (n,)."""
    return np.fromiter(map(hash_key, keys), _U64)


def hash_images(image_hashes: np.ndarray) -> np.ndarray:
    """Return the 64 bits that an index holds of image hashes: (n, 32) uint8 -> (n,) uint64."""
    return np.ascontiguousarray(image_hashes[:, :8]).view(_U64).reshape(-1)


def write_index(folder: Path, name: str, hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Write an index, and yield the groups of rows whose 64 bits are equal; it is complete when the iterator ends.

    Args:
        folder: path, an existing folder.
        name: str, name of the index; its files are `NAME.hashes.npy`, `NAME.rows.npy` and `NAME.starts.npy`.
        hashes: uint64 array of shape (rows,), in the order of the rows; may be mapped from a file.
    """
    count = len(hashes)
    bits = max(0, (count // PER_PREFIX).bit_length() - 1)
    parts = 1 << max(0, min(bits, (count // ROWS_IN_MEMORY).bit_length()))
    starts = np.zeros((1 << bits) + 1, _U64)
    with write_file(folder / f"{name}.hashes.npy") as first, write_file(folder / f"{name}.rows.npy") as second:
        for file in (first, second):
            np.lib.format.write_array_header_1_0(file, {"descr": _U64.str, "fortran_order": False, "shape": (count,)})
        for part in range(parts):
            rows = _rows_of_part(hashes, part, parts)
            values = hashes[rows]
            order = np.argsort(values, kind="stable")
            values, rows = values[order], rows[order]
            first.write(values.tobytes())
            second.write(rows.tobytes())
            starts[1:] += np.bincount(_prefix(values, bits), minlength=1 << bits).astype(_U64)
            yield from _equal_groups(values, rows)
    with write_file(folder / f"{name}.starts.npy") as file:
        np.save(file, np.cumsum(starts, dtype=_U64))


class Index:
    """Index that `write_index` wrote, mapped into memory.

    Args:
        folder: path of its files.
        name: str, name of the index.

    Raises:
        StoreError: naming the file that is missing or damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._hashes, self._rows, self._starts = (
            _map(folder / f"{name}.{part}.npy") for part in ("hashes", "rows", "starts")
        )
        self._bits = (len(self._starts) - 1).bit_length() - 1
        self._place = f"{folder / name}.*.npy"
        is_sound = len(self._starts) == (1 << max(self._bits, 0)) + 1 and len(self._hashes) == len(self._rows)
        if not is_sound or int(self._starts[-1]) != len(self._rows):
            raise StoreError(f"{self._place} do not belong together.")

    def find(self, value: int) -> list[int]:
        """Return the rows with these 64 bits of a hash, in ascending order.

        Raises:
            StoreError: naming the index, when it is damaged.
        """
        prefix = value >> (64 - self._bits)
        first, last = self._starts[prefix : prefix + 2].tolist()
        if not first <= last <= len(self._rows):
            raise StoreError(f"{self._place} are damaged: the start of a prefix lies behind its end.")
        near = self._hashes[first:last].tolist()
        return [int(self._rows[first + place]) for place, one in enumerate(near) if one == value]


def _rows_of_part(hashes: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return the rows whose hashes have this prefix, in order; the hashes are read in chunks."""
    bits = parts.bit_length() - 1
    chunks = [
        np.flatnonzero(_prefix(hashes[start : start + ROWS_IN_MEMORY], bits) == part) + start
        for start in range(0, len(hashes), ROWS_IN_MEMORY)
    ]
    return np.concatenate([np.zeros(0, np.int64), *chunks]).astype(_U64)


def _prefix(values: np.ndarray, bits: int) -> np.ndarray:
    if bits == 0:
        return np.zeros(len(values), np.int64)
    return (values >> np.uint64(64 - bits)).astype(np.int64)


def _equal_groups(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Return the rows of each run of equal values, for runs of two and more."""
    equal = values[1:] == values[:-1]
    edges = np.flatnonzero(np.diff(equal, prepend=False, append=False)).reshape(-1, 2)  # (runs, first and last)
    return (rows[first : last + 1] for first, last in edges.tolist())


def _map(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, and a damaged one raises errors of many types
        raise StoreError(f"{path}: {error}") from error
    if array.ndim != 1 or array.dtype != _U64:
        raise StoreError(f"{path} is not a file of an index.")
    return np.asarray(array)  # is read faster than a `np.memmap`
