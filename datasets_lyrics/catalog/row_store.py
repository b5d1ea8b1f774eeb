"""Rows of the catalog on disk, memory-mapped: a data set is read once, and its rows can then be read in any order.

The cache lies beside that of the `datasets` library. Its key holds the names, sizes and times of the data set's files
and folders, so that a change of any of them reads it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers.utils import logging

from ...utils.atomic_files import write_folder
from ...utils.optional_imports import import_optional
from ..path_guard import PathGuard
from .reading import CatalogReader
from .registry import open_word
from .rows import CAPTION_TASKS, canonical_batch, facts

logger = logging.get_logger(__name__)

VERSION = 2  # of the rows; a reader that changes them raises it
ROWS_AT_ONCE = 1000
DEPTH = 3  # of folders whose changes are noticed
_DATA = (".json", ".jsonl", ".p", ".txt", ".csv", ".tsv", ".xlsx", ".xlsm", ".parquet", ".yaml", ".yml", ".xml")


def store_rows(
    reader: CatalogReader,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Any:
    """Return the facts of all rows as a memory-mapped `datasets.Dataset`; they are read from the files if needed.

    Args:
        reader: reader of the data set.
        cache: folder of the cache; by default that of the `datasets` library.
        progress: function, called with the number of rows that were read since the last call.

    Raises:
        FileNotFoundError, ValueError: as iterating the reader does.
    """
    datasets = import_optional("datasets")
    folder = Path(cache or datasets.config.HF_DATASETS_CACHE) / "lyrics"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{reader.format.name}-{reader.split}-{fingerprint(reader)[:16]}"
    with FileLock(f"{place}.lock"):  # several ranks open the same data
        if not (place / "rows.arrow").is_file():
            with write_folder(place) as aside:
                _write(reader, aside, progress)
        elif notes := json.loads((place / "notes.json").read_text()):
            logger.warning(" ".join(notes))
    return datasets.Dataset.from_file(str(place / "rows.arrow"))


def fingerprint(reader: CatalogReader) -> str:
    """Return the SHA-256 of a data set's name and of the names, sizes and times of its files and folders."""
    digest = hashlib.sha256(f"{VERSION} {reader.format.name} {reader.folder.split} {reader.folder.root}".encode())
    for line in _changes(reader.folder.root, reader.file, DEPTH if reader.file is None else 1):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _changes(folder: Path, file: str | None, levels: int, level: int = 0) -> Iterator[str]:
    """Yield lines with names and times of folders, and of data files in the root and one folder below it.

    Where one file was named, no other one counts: it may lie in a home folder.
    """
    yield f"{folder} {folder.stat().st_mtime_ns}\n"
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.is_dir():
            if level < levels:
                yield from _changes(Path(entry.path), file, levels, level + 1)
        elif entry.name == file if file is not None else level <= 1 and entry.name.endswith(_DATA):
            yield f"{entry.path} {entry.stat().st_size} {entry.stat().st_mtime_ns}\n"


def _write(reader: CatalogReader, folder: Path, progress: Callable[[int], object]) -> None:
    import pyarrow as pa

    schema = facts_schema(pa)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        rows = (facts(row, reader) for row in reader)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            progress(len(batch))
    notes = [] if reader.summary is None else reader.summary.notes(reader)
    (folder / "notes.json").write_text(json.dumps(notes))


def facts_schema(pa: Any) -> Any:
    """Return the Arrow schema of facts."""
    text, texts, box = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())
    block = pa.struct([("type", text), ("text", text), ("box", box), ("label", text), ("image", pa.int64())])
    names = ("dataset", "split", "license", "id", "task", "question", "identity", "box_units")
    return pa.schema(
        [
            *((name, text) for name in names),
            *((name, texts) for name in ("images", "answers", "choices")),
            ("regions", pa.list_(pa.struct([("phrase", text), ("box", box)]))),
            ("messages", pa.list_(pa.struct([("role", text), ("content", pa.list_(block))]))),
        ]
    )


@dataclass(frozen=True)
class CatalogTransform:
    """Transform of the `datasets` library: facts become canonical rows, whose paths are checked.

    Attributes:
        guard: rule for paths.
    """

    guard: PathGuard

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return canonical rows as lists by column."""
        return self.guard.check_batch(canonical_batch(batch))


def guard_of(reader: CatalogReader, image_root: str | os.PathLike | None = None) -> PathGuard:
    """Return the rule for the images of a data set: below its root, and below `image_root`, where links may lead."""
    others = () if image_root is None else (Path(os.path.abspath(image_root)),)
    return PathGuard.below(reader.folder.root, *others)


def open_catalog_rows(
    word: str, split: str | None = None, image_root: str | os.PathLike | None = None, need_captions: bool = False
) -> Any:
    """Open `NAME:ROOT` as a map-style data set of canonical rows.

    Args:
        word: `NAME:ROOT` or `NAME/SPLIT:ROOT`.
        split: name of the split, if the word names none.
        image_root: further folder that the links of images may lead to.
        need_captions: bool, whether rows must have a caption.

    Raises:
        ValueError: when they need a caption and have none.
    """
    reader = open_word(word, split)
    rows = store_rows(reader)
    if need_captions and rows[0]["task"] not in CAPTION_TASKS:
        raise ValueError(
            f"{reader.format.name} has no captions, which the first stage needs; data sets with captions are of the "
            "family 'captions' (`lyrics data list`)."
        )
    return rows.with_transform(CatalogTransform(guard_of(reader, image_root)))


def catalog_images(word: str, split: str | None = None) -> tuple[Any, CatalogReader]:
    """Return the images of a data set, each once, as a data set with the column `image`; and its reader."""
    reader = open_word(word, split)
    column = store_rows(reader).select_columns(["images"])
    seen: dict[str, None] = {}
    for batch in column.iter(ROWS_AT_ONCE):
        seen.update((path, None) for paths in batch["images"] for path in paths)
    return import_optional("datasets").Dataset.from_dict({"image": list(seen)}), reader
