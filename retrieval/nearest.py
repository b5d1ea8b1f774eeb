"""The embeddings nearest to a query: exact up to a million, by FAISS beyond where it is installed."""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers.utils import logging

from ..utils.optional_imports import import_optional

logger = logging.get_logger(__name__)

EXACT_LIMIT = 1_000_000  # embeddings up to which every one is compared: 256 MB and 0.1 s for 64 numbers each
_ROWS_AT_ONCE = 1 << 18
_PROBES = 64  # of the lists of a FAISS index

Array = npt.NDArray[np.float32]


def nearest(embeddings: Array, query: Array, count: int) -> npt.NDArray[np.int64]:
    """Return the rows most similar to a query, best first; equal ones in their order. Every row is compared.

    Args:
        embeddings: float32 array of shape (N, D), of length 1.
        query: float32 array of shape (D,), of length 1.
        count: int, number of rows; fewer where there are fewer.
    """
    similarity = np.concatenate(
        [np.zeros(0, np.float32)]
        + [embeddings[at : at + _ROWS_AT_ONCE] @ query for at in range(0, len(embeddings), _ROWS_AT_ONCE)]
    )
    count = min(count, len(similarity))
    if count == 0:
        return np.zeros(0, np.int64)
    edge = np.partition(similarity, len(similarity) - count)[len(similarity) - count]
    rows = np.flatnonzero(similarity >= edge)
    return rows[np.argsort(-similarity[rows], kind="stable")][:count]


class EmbeddingRows:
    """Embeddings that are asked for those nearest to a query; many are kept in a FAISS index, which is loaded once.

    Args:
        folder: folder of the index.
        embeddings: float32 array of shape (N, D), of length 1.
    """

    def __init__(self, folder: Path, embeddings: Array) -> None:
        self.embeddings = embeddings
        self._folder = folder
        self._index: Any = None

    def nearest(self, query: Array, count: int) -> npt.NDArray[np.int64]:
        """Return the rows most similar to a query, best first.

        Args:
            query: float32 array of shape (D,), of length 1.
            count: int, number of rows.
        """
        if len(self.embeddings) <= EXACT_LIMIT or not self._has_faiss():
            return nearest(self.embeddings, query, count)
        if self._index is None:
            self._index = _faiss_index(self._folder, self.embeddings)
        _, rows = self._index.search(query, k=count)
        return np.array([row for row in rows if row >= 0], np.int64)

    def _has_faiss(self) -> bool:
        if find_spec("faiss") is not None:
            return True
        logger.warning_once(
            f"There are {len(self.embeddings):,} images, and every one is compared. That is exact but slow beyond "
            f"{EXACT_LIMIT:,}: install faiss-cpu (the extra `search`) to search in an index."
        )
        return False


def _faiss_index(folder: Path, embeddings: Array) -> Any:
    """Return the FAISS index of these embeddings, a `FaissIndex` of the `datasets` library.

    It is built once, or by each process where the folder cannot be written.
    """
    import faiss  # pyright: ignore[reportMissingImports]

    kind = import_optional("datasets.search").FaissIndex
    digest = hashlib.blake2b(np.ascontiguousarray(embeddings).data, digest_size=8).hexdigest()
    path = folder / f"faiss-{digest}.index"
    if path.is_file():
        index = kind.load(path)
    else:
        lists = 4 * int(len(embeddings) ** 0.5)
        index = kind(metric_type=faiss.METRIC_INNER_PRODUCT, string_factory=f"IVF{lists},Flat")
        index.add_vectors(embeddings, train_size=min(len(embeddings), 64 * lists))
        if os.access(folder, os.W_OK):
            _save(index, path)
    index.faiss_index.nprobe = _PROBES
    return index


def _save(index: Any, path: Path) -> None:
    """Write a FAISS index, which appears when it is complete, and remove those of other embeddings."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    index.save(aside)
    os.replace(aside, path)
    for old in path.parent.glob("faiss-*.index"):
        if old != path:
            old.unlink()
