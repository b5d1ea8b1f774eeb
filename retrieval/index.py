"""EmbeddingIndex: embeddings of images in Parquet files, which grow with the images and survive interruptions.

A row holds the key of an image, a signature by which a changed file is noticed, its embedding and its objects, which
the scores of pairs need. Rows are never changed: a changed image gets a new row, and the last row of a key counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..processing_lyrics import VisualObjects
from ..refinement.storage.rows import Row, RowFormat, build_batch
from ..utils.atomic_files import is_aside, remove_leftovers, write_file
from ..utils.folder_lock import LOCK_NAME
from ..utils.optional_imports import import_optional
from .model_identity import explain_differences

MANIFEST = "index.json"
VERSION = 1
ROWS_OF_GROUP = 128  # are read together when the objects of one are needed
ROWS_OF_PART = 8192  # in a file, when there are as many: 40 MB with 10 objects of 260 numbers each


class EmbeddingIndexError(ValueError):
    """Something is wrong with an index; the message says what, and what to do."""


@dataclass(frozen=True)
class IndexedPicture:
    """Row of an index.

    Attributes:
        row: key, hashes, size and objects of an image.
        signature: str, changes with the image's file.
        shard: int, shard of the source that has the image.
        embedding: float32 array of shape (D,), of length 1.
    """

    row: Row
    signature: str
    shard: int
    embedding: npt.NDArray[np.float32]


class EmbeddingIndex:
    """Embeddings of images in a folder.

    Attributes:
        path: path of the folder.
        rows: format of the objects.
        keys: list of the keys of all rows.
        signatures: list of the signatures of all rows.
        shards: list of the shards of all rows.
    """

    def __init__(self, path: Path, rows: RowFormat, size: int) -> None:
        self.path, self.rows, self._size = path, rows, size
        self.keys: list[str] = []
        self.signatures: list[str] = []
        self.shards: list[int] = []
        self._vectors: list[npt.NDArray[np.float32]] = [np.zeros((0, size), np.float32)]
        self._places: list[tuple[Path, int]] = []
        for part in list_parts(path):
            self._read(part)

    @classmethod
    def open(
        cls,
        path: Path,
        encoder: dict[str, Any],
        rows: RowFormat,
        size: int,
        source: dict[str, Any],
        is_writable: bool = True,
    ) -> Self:
        """Open an index, or begin one in an empty or new folder. The caller holds the lock of a writable folder.

        Args:
            path: path of the folder, which exists.
            encoder: description of what makes the embeddings, see `describe_encoder`.
            rows: format of the objects.
            size: int, width D of an embedding.
            source: description of the images, where their signatures cannot tell that they are others.
            is_writable: bool, whether leftovers of killed runs are removed and small files are joined.

        Raises:
            EmbeddingIndexError: the folder holds something else, is damaged, or belongs to another model or other
                images.
        """
        described = {"version": VERSION, "encoder": encoder, "size": size, "source": source}
        manifest = path / MANIFEST
        if is_writable:
            remove_leftovers(path)
        if not manifest.exists():
            others = [
                one.name for one in path.iterdir() if not one.name.startswith(LOCK_NAME) and not is_aside(one.name)
            ]
            if others:
                raise EmbeddingIndexError(f"{path} is neither empty nor an index: there is {sorted(others)[0]!r}.")
            with write_file(manifest, "w", encoding="utf-8") as file:
                json.dump(described, file, indent=1)
        saved = _read_manifest(manifest)
        for name, owner in (("encoder", "another model"), ("source", "other images")):
            if (differences := explain_differences(saved[name], described[name])) is not None:
                advice = "Name another folder for the index, or remove this one"
                raise EmbeddingIndexError(f"{path} was made with {owner}: {differences}. {advice}.")
        if is_writable:
            merge_parts(path)
        return cls(path, rows, size)

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """Embeddings of all rows, float32 array of shape (rows, D)."""
        if len(self._vectors) > 1:
            self._vectors = [np.concatenate(self._vectors)]
        return self._vectors[0]

    def __len__(self) -> int:
        return len(self.keys)

    def latest(self) -> dict[str, int]:
        """Return the number of the row of each key."""
        return {key: number for number, key in enumerate(self.keys)}

    def append(self, pictures: Sequence[IndexedPicture]) -> None:
        """Write rows as a new file, which appears when it is complete."""
        if not pictures:
            return
        pa, pq = import_optional("pyarrow"), import_optional("pyarrow.parquet")
        batch = build_batch([one.row for one in pictures], self.rows)
        table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
        flat = pa.array(np.concatenate([one.embedding for one in pictures]).astype(np.float32))
        table = table.append_column("signature", pa.array([one.signature for one in pictures], pa.string()))
        table = table.append_column("shard", pa.array([one.shard for one in pictures], pa.int64()))
        table = table.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, self._size))
        parts = list_parts(self.path)
        number = 1 + int(parts[-1].stem.rpartition("-")[2]) if parts else 0
        path = self.path / f"part-{number:06d}.parquet"
        with write_file(path) as file:
            pq.write_table(table, file, row_group_size=ROWS_OF_GROUP)
        self._read(path)

    def objects(self, number: int) -> VisualObjects:
        """Return the objects of a row."""
        path, place = self._places[number]
        columns = ["labels", "boxes", "scores", "region_features", "tags"]
        with import_optional("pyarrow.parquet").ParquetFile(path) as file:
            group = file.read_row_group(place // ROWS_OF_GROUP, columns)
        values = group.slice(place % ROWS_OF_GROUP, 1).to_pylist()[0]
        width = self.rows.region_feature_size
        values["region_features"] = np.array(values["region_features"], np.float16).reshape(-1, width)
        return VisualObjects.from_dict(values)

    def _read(self, path: Path) -> None:
        """Add the rows of a file to those in memory."""
        pq = import_optional("pyarrow.parquet")
        try:
            table = pq.read_table(path, columns=["key", "signature", "shard", "embedding"])
            vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, self._size)
            keys, signatures, shards = (table[name].to_pylist() for name in ("key", "signature", "shard"))
        except Exception as error:  # pyarrow has errors of many types for damaged files
            raise EmbeddingIndexError(
                f"{path} is damaged ({error}). Remove it: its images are then embedded again."
            ) from error
        self.keys += keys
        self.signatures += signatures
        self.shards += shards
        self._vectors.append(vectors)
        self._places += [(path, place) for place in range(len(keys))]


def list_parts(folder: Path) -> list[Path]:
    """Return the files with rows, in their order."""
    return sorted(folder.glob("part-*.parquet"))


def merge_parts(folder: Path, rows: int = ROWS_OF_PART) -> None:
    """Join consecutive files until each has at least some number of rows, so that few files have to be opened.

    A joined file takes the place of its last one before the others are removed: a row that is found twice meanwhile is
    the same row.

    Args:
        folder: folder of an index, whose lock is held.
        rows: int, number of rows.
    """
    pa, pq = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    waiting: list[Path] = []
    count = 0
    for path in list_parts(folder):
        try:
            found = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):  # a damaged file is named when its rows are read
            return
        if found >= rows:
            waiting, count = [], 0
            continue
        waiting.append(path)
        count += found
        if count >= rows:
            table = pa.concat_tables([pq.read_table(one) for one in waiting])
            with write_file(path) as file:
                pq.write_table(table, file, row_group_size=ROWS_OF_GROUP)
            for one in waiting[:-1]:
                one.unlink()
            waiting, count = [], 0


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the description of an index."""
    try:
        saved = json.loads(path.read_text("utf-8"))
        if saved["version"] != VERSION:
            raise ValueError(f"it has version {saved['version']!r}, and this release reads {VERSION}")
        if not all(isinstance(saved[name], dict) for name in ("encoder", "source")):
            raise ValueError("encoder and source must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddingIndexError(
            f"{path} is no description of an index: {error}. Remove {path.parent} to begin anew."
        ) from error
    return saved
